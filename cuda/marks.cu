/*
 * The device's clock: marks between stages, and its time now. Marks have a stream of their own beside the steps', so that nothing waits for them:
 *
 *     stream        | attention |  router  | shared experts | ... | end of step
 *     mark_stream               mark       mark             mark  ^ joined
 */
#include "engine.cuh"
#include "system.cuh"

__global__ void mark_kernel(uint64_t *to) { *to = global_time(); }

int tcu_mark(tcu_engine *e, int32_t index) {
  CHECK(enter(e));
  if (!e->attached || index < 0 || index >= e->host.mark_count) return failed(TCU_ARGUMENT, "tcu_mark: mark %d of %d", index, e->host.mark_count);
  CHECK_CUDA(cudaEventRecord(e->reached, e->stream));
  CHECK_CUDA(cudaStreamWaitEvent(e->mark_stream, e->reached, 0));
  mark_kernel<<<1, 1, 0, e->mark_stream>>>(e->host.marks + index);
  CHECK_LAUNCH("mark_kernel");
  e->has_marks = true;
  return TCU_OK;
}

int join_marks(tcu_engine &e) {
  if (!e.has_marks) return TCU_OK;
  e.has_marks = false;
  CHECK_CUDA(cudaEventRecord(e.marked, e.mark_stream));
  CHECK_CUDA(cudaStreamWaitEvent(e.stream, e.marked, 0));
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
