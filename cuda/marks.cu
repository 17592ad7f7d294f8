/* The device's clock: marks between stages, and its time now. */
#include "launch.cuh"
#include "system.cuh"

__global__ void mark_kernel(uint64_t *to) {
  let_next_start();
  wait_for_previous();
  *to = global_time();
}

int tcu_mark(tcu_engine *e, int32_t index) {
  CHECK(enter(e));
  if (!e->attached || index < 0 || index >= e->host.mark_count) return failed(TCU_ARGUMENT, "tcu_mark: mark %d of %d", index, e->host.mark_count);
  launch_after(*e, mark_kernel, dim3(1), 1, 0, e->host.marks + index);
  CHECK_LAUNCH("mark_kernel");
  return TCU_OK;
}

int tcu_clock(tcu_engine *e, uint64_t *ns) {
  CHECK(enter(e));
  if (!ns || e->capturing) return failed(TCU_ARGUMENT, "tcu_clock: nowhere to put the result, or while capturing");
  mark_kernel<<<1, 1, 0, e->stream>>>(&e->device_words->clock);
  CHECK_LAUNCH("mark_kernel");
  CHECK_CUDA(cudaStreamSynchronize(e->stream));
  *ns = e->words->clock;
  return TCU_OK;
}
