/*
 * The device's clock: marks between stages, and its time now. Marks stay on the device until the step ends: a kernel that writes to the host ends
 * only when the bus has taken it, and the next stage would wait for that.
 */
#include "launch.cuh"
#include "system.cuh"

enum { TELL_THREADS = 128 };

__global__ void mark_kernel(uint64_t *to) {
  let_next_start();
  wait_for_previous();
  *to = global_time();
}

__global__ void __launch_bounds__(TELL_THREADS) tell_marks_kernel(uint64_t *to, const uint64_t *marks, int count) {
  for (int i = (int)threadIdx.x; i < count; i += TELL_THREADS) to[i] = marks[i];
}

int tcu_mark(tcu_engine *e, int32_t index) {
  CHECK(enter(e));
  if (!e->attached || index < 0 || index >= e->host.mark_count) return failed(TCU_ARGUMENT, "tcu_mark: mark %d of %d", index, e->host.mark_count);
  launch_after(*e, mark_kernel, dim3(1), 1, 0, e->marks + index);
  CHECK_LAUNCH("mark_kernel");
  e->has_marks = true;
  return TCU_OK;
}

int tell_marks(tcu_engine &e) {
  if (!e.has_marks) return TCU_OK;
  e.has_marks = false;
  tell_marks_kernel<<<1, TELL_THREADS, 0, e.stream>>>(e.host.marks, e.marks, e.host.mark_count);
  CHECK_LAUNCH("tell_marks_kernel");
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
