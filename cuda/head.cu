/* Logits of the output tokens, the best of each row, and the rows that the head multiplied. */
#include <float.h>
#include "launch.cuh"
#include "order.cuh"

/* One pass over some keys: `count` of each row, cut into slices, whose best are the next pass's keys; the pass with a single slice tells them. */
struct best_pass {
  const float *logits;    /* f32[rows, vocabulary] */
  const uint64_t *keys;   /* u64[rows, count]; null in the first pass, which makes the keys of the logits */
  uint64_t *best;         /* u64[rows, slices, top] */
  int32_t *top_ids;       /* i32[rows, stride] in host memory, where a row's best are told */
  float *top_logits;
  int vocabulary, count, top, stride;
};

/* Higher for the better token: the larger logit, of equals the lower id. What is not finite is better than all else. 0 is no token's key. */
__device__ __forceinline__ uint64_t best_key(float logit, uint32_t id) {
  const uint32_t order = fabsf(logit) <= FLT_MAX ? ordered(logit) : ~0u;
  return (uint64_t)order << 32 | ~id;
}

__device__ __forceinline__ uint64_t higher(uint64_t a, uint64_t b) { return a > b ? a : b; }

/* The highest key of all threads, in thread 0. `shared`: u64[32]. */
template <int THREADS> __device__ uint64_t highest(uint64_t key, uint64_t *shared) {
  for (int apart = 16; apart > 0; apart /= 2) key = higher(key, __shfl_xor_sync(~0u, key, apart));
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = key;
  __syncthreads();
  if (threadIdx.x >= 32) return key;
  key = threadIdx.x < THREADS / 32 ? shared[threadIdx.x] : 0;
  for (int apart = 16; apart > 0; apart /= 2) key = higher(key, __shfl_xor_sync(~0u, key, apart));
  return key;
}

/* Sorts the keys of the first `count` threads (a power of two), highest first: bitonic, within a warp without shared memory. `shared`: u64[threads]. */
__device__ __forceinline__ uint64_t sorted_descending(uint64_t key, int count, uint64_t *shared) {
  const int at = (int)threadIdx.x;
  for (int length = 2; length <= count; length *= 2) {
    for (int apart = length / 2; apart > 0; apart /= 2) {
      uint64_t other;
      if (apart >= 32) {
        __syncthreads();
        shared[at] = key;
        __syncthreads();
        other = shared[at ^ apart];
      } else {
        other = __shfl_xor_sync(~0u, key, apart);
      }
      const bool takes_higher = ((at & apart) == 0) == ((at & length) == 0);
      key = (other > key) == takes_higher ? other : key;
    }
  }
  return key;
}

/*
 * The `top` best of a slice, which is PER_THREAD keys of every thread: the threads' highest are sorted; the `top`-th of them is a bound that at least
 * `top` keys reach, and none of a thread whose highest does not. So at most top * PER_THREAD keys are left to be sorted, mostly little more than `top`.
 */
template <int THREADS, int PER_THREAD> __global__ void __launch_bounds__(THREADS) best_kernel(const best_pass pass) {
  static_assert(MOST_TOP * PER_THREAD <= THREADS, "what may be left has a thread each");
  __shared__ uint64_t shared[THREADS];
  __shared__ int left;
  const int slice = (int)blockIdx.x, at = (int)threadIdx.x, top = pass.top;
  const size_t row = blockIdx.y;
  let_next_start();
  if (at == 0) left = 0;
  wait_for_previous();
  uint64_t keys[PER_THREAD], best = 0;
#pragma unroll
  for (int i = 0; i < PER_THREAD; i++) {
    const int from = (slice * PER_THREAD + i) * THREADS + at;
    const size_t index = row * (size_t)pass.count + (size_t)from;
    keys[i] = from >= pass.count ? 0 : pass.keys ? pass.keys[index] : best_key(pass.logits[index], (uint32_t)from);
    best = higher(best, keys[i]);
  }
  if (top == 1) {
    best = highest<THREADS>(best, shared);
  } else {
    best = sorted_descending(best, THREADS, shared);
    __syncthreads();
    shared[at] = best;
    __syncthreads();
    const uint64_t bound = shared[top - 1];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < PER_THREAD; i++) {
      if (keys[i] > 0 && keys[i] >= bound) shared[atomicAdd(&left, 1)] = keys[i];
    }
    __syncthreads();
    const int count = left;
    best = at < count ? shared[at] : 0;
    best = sorted_descending(best, count <= 1 ? 1 : 1 << (32 - __clz(count - 1)), shared);
  }
  if (at >= top) return;
  if (gridDim.x > 1) {
    pass.best[(row * gridDim.x + (size_t)slice) * (size_t)top + (size_t)at] = best;
  } else {
    const uint32_t id = ~(uint32_t)best;
    pass.top_ids[row * (size_t)pass.stride + (size_t)at] = (int32_t)id;
    pass.top_logits[row * (size_t)pass.stride + (size_t)at] = pass.logits[row * (size_t)pass.vocabulary + id];
  }
}

int tell_best(tcu_engine &e, int rows, int top) {
  best_pass pass = {e.b.logits, nullptr, nullptr, e.host.top_ids, e.host.top_logits, e.shape.vocabulary, e.shape.vocabulary, top, e.shape.top};
  for (int round = 0;; round++) {
    const int slices = best_slices(pass.count, round);
    pass.best = e.b.best[round % 2];
    const dim3 grid((unsigned)slices, (unsigned)rows);
    if (round == 0) launch_after(e, best_kernel<FIRST_THREADS, FIRST_SLICE / FIRST_THREADS>, grid, FIRST_THREADS, 0, pass);
    else launch_after(e, best_kernel<LATER_THREADS, LATER_SLICE / LATER_THREADS>, grid, LATER_THREADS, 0, pass);
    CHECK_LAUNCH("best_kernel");
    if (slices == 1) return TCU_OK;
    pass.keys = pass.best;
    pass.count = slices * top;
  }
}

int tcu_head(tcu_engine *e, int32_t results, int32_t top) {
  CHECK(enter_step(e));
  if (!e->has_model) return failed(TCU_ARGUMENT, "tcu_head: no model is bound");
  const tcu_matrix &head = e->model.head;
  const int rows = e->step.output_count, hidden = e->shape.hidden, vocabulary = e->shape.vocabulary;
  const bool want_logits = results & TCU_LOGITS, want_hidden = results & TCU_HIDDEN;
  if (!head.address || (want_logits && !e->host.logits)) return failed(TCU_ARGUMENT, "tcu_head: no head is bound, or nowhere to put the logits");
  if (want_hidden && !e->host.hidden) return failed(TCU_ARGUMENT, "tcu_head: nowhere to put the hidden rows");
  if (top < 0 || top > e->shape.top) return failed(TCU_ARGUMENT, "tcu_head: the best %d, the engine has room for %d", top, e->shape.top);
  if (rows == 0) return TCU_OK;
  const float *norm = (const float *)e->model.output_norm;
  const int forms = form_of(head.format) | (want_hidden ? FORM_ROWS : 0);
  CHECK(norm_and_quantize(*e, e->b.normed, forms, e->b.x, norm, e->b.step.outputs, hidden, rows));
  if (want_hidden) CHECK(copy_words(*e, e->host.hidden, e->b.normed.rows, (int64_t)rows * hidden));
  /* logits that nobody looks at on the device go to the host as they come: a copy behind the product would take longer */
  const bool straight = want_logits && top == 0 && suits_matvec(*e, rows);
  CHECK(matmul(*e, head, e->b.normed, straight ? e->host.logits : e->b.logits, vocabulary, MATMUL_STORE, nullptr, rows));
  if (top > 0) CHECK(tell_best(*e, rows, top));
  if (want_logits && !straight) {
    const size_t bytes = (size_t)rows * (size_t)vocabulary * sizeof(float);
    CHECK_CUDA(cudaMemcpyAsync(e->host.logits, e->b.logits, bytes, cudaMemcpyDefault, e->stream));
  }
  return TCU_OK;
}
