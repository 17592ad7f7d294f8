/* The text of the last failure, and failures on demand. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <atomic>
#include "engine.h"

static thread_local char text[1024];

int failed(int status, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  return status;
}

const char *last_text() { return text; }

int tcu_error_text(char *into, int32_t bytes) {
  if (!into || bytes <= 0) return TCU_ARGUMENT;
  snprintf(into, (size_t)bytes, "%s", text);
  return TCU_OK;
}

/* Countdowns by kind: 0 is disarmed. A lost and an absent device stay so at -1. */
static std::atomic<int32_t> countdowns[FAULTS];

static bool stays(int kind) { return kind == FAULT_LOST || kind == FAULT_ABSENT; }

int tcu_host_fault(int32_t kind, int32_t countdown) {
  if (kind < FAULT_NONE || kind >= FAULTS || countdown < 0) return failed(TCU_ARGUMENT, "tcu_host_fault: kind %d, countdown %d", kind, countdown);
  if (kind != FAULT_NONE) countdowns[kind] = countdown;
  else for (std::atomic<int32_t> &each : countdowns) each = 0;
  return TCU_OK;
}

bool fault_hits(fault kind) {
  int32_t left = countdowns[kind];
  do {
    if (left <= 0) return left < 0;
  } while (!countdowns[kind].compare_exchange_weak(left, left > 1 ? left - 1 : stays(kind) ? -1 : 0));
  return left == 1;
}

bool is_lost() { return countdowns[FAULT_LOST] < 0; }
