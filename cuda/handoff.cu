/*
 * The hand-off to the pool and back, through words in host memory.
 *
 *     device                                         pool
 *     slot, published[1], published[2]
 *     published[0] = count         (release)  ---->  (acquire) runs entry published[1] on the slot
 *     completed >= count           (acquire)  <----  (release) writes `routed`, counts `completed` up
 *
 * Counts live in device memory, because a graph repeats its kernels with the same parameters. Differences of counts are compared: they wrap.
 */
#include "handoff.cuh"
#include "launch.cuh"
#include "system.cuh"

enum { WATCHERS = 32 };

__global__ void publish_kernel(uint32_t *counters, int32_t *published, int entry, int tokens) { publish_slot(counters, published, entry, tokens); }

int publish(tcu_engine &e, const layer_binding &layer) {
  publish_kernel<<<1, 1, 0, e.stream>>>(e.b.counters, e.host.published, layer.slot.entry, e.step.token_count);
  CHECK_LAUNCH("publish_kernel");
  return TCU_OK;
}

/*
 * One warp; three lanes watch a word each, so that looking at all of them costs one trip over the bus. A failure is told once, in `status`, and
 * kept on the device: later waits return at once, so that the step always comes to its end.
 */
__global__ void __launch_bounds__(WATCHERS) await_kernel(uint32_t *counters, const int32_t *completed, const int32_t *poison, const int32_t *closing,
                                                         int32_t *status, uint64_t deadline_ns) {
  let_next_start();
  wait_for_previous();
  if (counters[COUNTER_FAILED]) return;
  const uint32_t wanted = counters[COUNTER_PUBLISHED];
  const uint64_t begin = global_time();
  const int32_t *word = threadIdx.x == 0 ? completed : threadIdx.x == 1 ? poison : closing;
  int failure = TCU_OK;
  while (failure == TCU_OK) {
    const int32_t value = threadIdx.x < 3 ? load_acquire_system(word) : 0;
    const unsigned caught_up = __ballot_sync(~0u, threadIdx.x == 0 && (int32_t)((uint32_t)value - wanted) >= 0);
    if (caught_up) return;
    const unsigned stopped = __ballot_sync(~0u, threadIdx.x > 0 && value != 0);
    const unsigned late = __ballot_sync(~0u, threadIdx.x == 0 && global_time() - begin > deadline_ns);
    failure = stopped ? TCU_POISONED : late ? TCU_TIMEOUT : TCU_OK;
    __nanosleep(64);
  }
  if (threadIdx.x == 0 && atomicCAS(counters + COUNTER_FAILED, 0u, (uint32_t)failure) == 0) store_release_system(status, failure);
}

int await_routed(tcu_engine &e) {
  const uint64_t deadline_ns = (uint64_t)e.shape.deadline_ms * 1000000;
  launch_after(e, await_kernel, dim3(1), WATCHERS, 0, e.b.counters, e.host.completed, e.host.poison, &e.device_words->closing, e.host.status, deadline_ns);
  CHECK_LAUNCH("await_kernel");
  return TCU_OK;
}
