/* x += routed + shared */
#include "launch.cuh"

enum { COMBINE_THREADS = 256 };

/*
 * x, routed, shared: f32[count * 4]. Either of the two may be null. `routed` may be host memory that the pool has just written: it is read past
 * the caches, 16 bytes a thread.
 */
__global__ void __launch_bounds__(COMBINE_THREADS) combine_kernel(float4 *x, const float4 *routed, const float4 *shared, int64_t count) {
  let_next_start();
  wait_for_previous();
  const int64_t i = (int64_t)blockIdx.x * COMBINE_THREADS + threadIdx.x;
  if (i >= count) return;
  float4 sum = routed ? __ldcv(routed + i) : make_float4(0, 0, 0, 0);
  if (shared) {
    const float4 b = shared[i];
    sum = make_float4(sum.x + b.x, sum.y + b.y, sum.z + b.z, sum.w + b.w);
  }
  const float4 a = x[i];
  x[i] = make_float4(a.x + sum.x, a.y + sum.y, a.z + sum.z, a.w + sum.w);
}

int combine(tcu_engine &e, const float *routed, const float *shared) {
  const int64_t count = (int64_t)e.step.token_count * e.shape.hidden / 4;
  const unsigned blocks = (unsigned)((count + COMBINE_THREADS - 1) / COMBINE_THREADS);
  launch_after(e, combine_kernel, dim3(blocks), COMBINE_THREADS, 0, (float4 *)e.b.x, (const float4 *)routed, (const float4 *)shared, count);
  CHECK_LAUNCH("combine_kernel");
  return TCU_OK;
}
