/* What the check programs share that work on an engine: an end that says where it was, calls that must succeed, a clock, words of the pool. */
#pragma once
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <string>
#include "../engine.cuh"

/* What is being done, for messages. */
static std::string at_hand = "start";

/* At once: other threads may still be at work on the engine. */
[[noreturn]] inline void fail(const char *format, ...) {
  va_list list;
  va_start(list, format);
  printf("FAILED in %s: ", at_hand.c_str());
  vprintf(format, list);
  va_end(list);
  printf("\n");
  fflush(stdout);
  _Exit(1);
}

inline void need(int status, const char *call) {
  char text[512];
  if (status == TCU_OK) return;
  tcu_error_text(text, sizeof text);
  fail("%s: status %d, %s", call, status, text);
}
#define NEED(call) need(call, #call)

inline void need_cuda(cudaError_t error, const char *call) {
  if (error != cudaSuccess) fail("%s: %s", call, cudaGetErrorString(error));
}
#define CUDA(call) need_cuda(call, #call)

inline double seconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

inline int32_t load_acquire(const int32_t *word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }
inline void store_release(const int32_t *word, int32_t value) { __atomic_store_n((int32_t *)word, value, __ATOMIC_RELEASE); }
