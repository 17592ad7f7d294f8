/* What a step works on, to host memory and back: for whoever looks at it between two parts of a step. */
#include "launch.cuh"

enum { COPY_THREADS = 256 };

/*
 * A kernel and not cudaMemcpyAsync: it keeps its place among kernels that begin early (launch.cuh), and it costs no more for rows of few tokens.
 * Read past the caches: the host may have just written what lies there.
 */
__global__ void __launch_bounds__(COPY_THREADS) copy_kernel(uint32_t *to, const uint32_t *from, int64_t count) {
  let_next_start();
  wait_for_previous();
  const int64_t i = (int64_t)blockIdx.x * COPY_THREADS + threadIdx.x;
  if (i < count) to[i] = __ldcv(from + i);
}

int copy_words(tcu_engine &e, void *to, const void *from, int64_t count) {
  const unsigned blocks = (unsigned)((count + COPY_THREADS - 1) / COPY_THREADS);
  launch_after(e, copy_kernel, dim3(blocks), COPY_THREADS, 0, (uint32_t *)to, (const uint32_t *)from, count);
  CHECK_LAUNCH("copy_kernel");
  return TCU_OK;
}

/* Where the step's rows lie, how many words there are, and where the device sees the host's. */
static int find_rows(tcu_engine &e, const char *what, int rows, const void *host, void **device, void **seen, int64_t &count) {
  const tcu_shape &s = e.shape;
  if (rows < TCU_X || rows > TCU_EXPERT_WEIGHTS || !host) return failed(TCU_ARGUMENT, "%s: no host memory, or no rows %d", what, rows);
  if (rows == TCU_ROUTED && !s.device_experts) return failed(TCU_ARGUMENT, "%s: there are no experts on the device", what);
  void *const places[] = {e.b.x, e.b.shared, e.b.routed, e.b.expert_ids, e.b.expert_weights};
  *device = places[rows];
  count = (int64_t)e.step.token_count * (rows < TCU_EXPERT_IDS ? s.hidden : s.experts_used);
  return device_address(e, host, (uint64_t)count * 4, what, seen);
}

int tcu_read_rows(tcu_engine *e, int32_t rows, void *host) {
  CHECK(enter_step(e));
  void *device = nullptr, *seen = nullptr;
  int64_t count = 0;
  CHECK(find_rows(*e, "tcu_read_rows", rows, host, &device, &seen, count));
  return copy_words(*e, seen, device, count);
}

int tcu_write_rows(tcu_engine *e, int32_t rows, const void *host) {
  CHECK(enter_step(e));
  void *device = nullptr, *seen = nullptr;
  int64_t count = 0;
  if (rows == TCU_EXPERT_IDS) return failed(TCU_ARGUMENT, "tcu_write_rows: experts are not chosen here");
  CHECK(find_rows(*e, "tcu_write_rows", rows, host, &device, &seen, count));
  return copy_words(*e, device, seen, count);
}
