/* The hand-off to the pool and back, through words in host memory. Counts wrap, so differences are compared. */
#include <sched.h>
#include <chrono>
#include "engine.h"

enum { SPINS = 2000, SLEEP_US = 20 };

void queue_publish(tcu_engine &e, const tcu_slot &slot) {
  queue_work(e, [&e, entry = slot.entry, tokens = e.step.token_count] {
    if (e.closing || e.step_failure != TCU_OK || e.device_failure != TCU_OK) return;
    e.published++;
    if (fault_hits(FAULT_PUBLISH)) return;
    __atomic_store_n(e.host.published + 1, entry, __ATOMIC_RELAXED);
    __atomic_store_n(e.host.published + 2, tokens, __ATOMIC_RELAXED);
    /* released after the slot and the two words */
    __atomic_store_n(e.host.published, (int32_t)e.published, __ATOMIC_RELEASE);
  });
}

int tcu_publish(tcu_engine *e, int32_t layer) {
  CHECK(enter_layer(e, layer));
  const layer_binding &binding = e->layers[(size_t)layer];
  if (!binding.has_slot) return failed(TCU_ARGUMENT, "tcu_publish: layer %d has no slot", layer);
  if (e->published_layer != layer) queue_publish(*e, binding.slot);
  e->published_layer = -1;
  return TCU_OK;
}

/* Spins a little, then sleeps in between: the pool may need this core. */
static int await_completed(tcu_engine &e) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(e.shape.deadline_ms);
  for (int looks = 0;; looks++) {
    const uint32_t completed = (uint32_t)__atomic_load_n(e.host.completed, __ATOMIC_ACQUIRE);
    if ((int32_t)(completed - e.published) >= 0) return TCU_OK;
    if (e.closing) return failed(TCU_POISONED, "a hand-off was awaited while the engine was closed");
    if (__atomic_load_n(e.host.poison, __ATOMIC_ACQUIRE) != 0) return failed(TCU_POISONED, "a hand-off was awaited when the poison word was set");
    if (std::chrono::steady_clock::now() > end) return failed(TCU_TIMEOUT, "a hand-off did not come back within %d ms", e.shape.deadline_ms);
    if (looks < SPINS) sched_yield();
    else std::this_thread::sleep_for(std::chrono::microseconds(SLEEP_US));
  }
}

int tcu_await_routed(tcu_engine *e, int32_t layer) {
  CHECK(enter_layer(e, layer));
  if (!e->layers[(size_t)layer].has_slot) return failed(TCU_ARGUMENT, "tcu_await_routed: layer %d has no slot", layer);
  queue_work(*e, [e] {
    if (e->closing || e->step_failure != TCU_OK || e->device_failure != TCU_OK) return;
    const int status = await_completed(*e);
    if (status != TCU_OK) fail_step(*e, status);
  });
  return TCU_OK;
}
