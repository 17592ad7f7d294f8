/* Logits of the output tokens, the best of each row, and the rows that the head multiplied. */
#include "engine.cuh"
#include "order.cuh"

enum { TOP_THREADS = 512 };

/* Sorts u64[TOP_SLICE] in shared memory, highest first: bitonic, each step compares pairs that are `apart`. */
__device__ void sort_descending(uint64_t *keys) {
  for (int length = 2; length <= TOP_SLICE; length *= 2) {
    for (int apart = length / 2; apart > 0; apart /= 2) {
      __syncthreads();
      for (int i = threadIdx.x; i < TOP_SLICE / 2; i += TOP_THREADS) {
        const int low = i / apart * 2 * apart + i % apart, high = low + apart;
        const uint64_t a = keys[low], b = keys[high];
        if ((a < b) == ((low & length) == 0)) {
          keys[low] = b;
          keys[high] = a;
        }
      }
    }
  }
  __syncthreads();
}

/*
 * The `top` highest of every slice of a row. A key is a logit's order, then its id upside down: equal logits go to the lower id, and NaN (order 0)
 * comes last. Key 0 is nothing at all.
 *
 * logits: f32[rows, count], or null and keys: u64[rows, count]; best: u64[rows, parts, top]. A row's slice for every block.
 */
__global__ void __launch_bounds__(TOP_THREADS) top_kernel(const float *logits, const uint64_t *keys, uint64_t *best, int count, int top) {
  __shared__ uint64_t slice[TOP_SLICE];
  const size_t row = (size_t)blockIdx.y * (size_t)count;
  for (int i = threadIdx.x; i < TOP_SLICE; i += TOP_THREADS) {
    const int at = (int)blockIdx.x * TOP_SLICE + i;
    slice[i] = at >= count ? 0 : logits ? (uint64_t)ordered(logits[row + (size_t)at]) << 32 | ~(uint32_t)at : keys[row + (size_t)at];
  }
  sort_descending(slice);
  uint64_t *out = best + ((size_t)blockIdx.y * gridDim.x + blockIdx.x) * (size_t)top;
  for (int i = threadIdx.x; i < top; i += TOP_THREADS) out[i] = slice[i];
}

/* best: u64[rows, top] -> ids and logits in host memory. */
__global__ void tell_top_kernel(const uint64_t *best, const float *logits, int32_t *top_ids, float *top_logits, int vocabulary, int top) {
  const size_t row = blockIdx.x;
  for (int i = threadIdx.x; i < top; i += blockDim.x) {
    const size_t at = row * (size_t)top + (size_t)i;
    const uint32_t id = ~(uint32_t)best[at];
    top_ids[at] = (int32_t)id;
    top_logits[at] = logits[row * (size_t)vocabulary + id];
  }
}

/* Slices, then the slices' best, until one slice is left. */
static int tell_top(tcu_engine &e, int rows) {
  const int top = e.shape.top, vocabulary = e.shape.vocabulary;
  const float *logits = e.b.logits;
  const uint64_t *keys = nullptr;
  for (int count = vocabulary, round = 0;; round++) {
    const int parts = top_parts(count);
    uint64_t *best = e.b.best[round % 2];
    top_kernel<<<dim3((unsigned)parts, (unsigned)rows), TOP_THREADS, 0, e.stream>>>(logits, keys, best, count, top);
    CHECK_LAUNCH("top_kernel");
    logits = nullptr;
    keys = best;
    count = parts * top;
    if (parts == 1) break;
  }
  tell_top_kernel<<<(unsigned)rows, 64, 0, e.stream>>>(keys, e.b.logits, e.host.top_ids, e.host.top_logits, vocabulary, top);
  CHECK_LAUNCH("tell_top_kernel");
  return TCU_OK;
}

int tcu_head(tcu_engine *e, int32_t results) {
  CHECK(enter_step(e));
  if (!e->has_model) return failed(TCU_ARGUMENT, "tcu_head: no model is bound");
  const tcu_matrix &head = e->model.head;
  const int rows = e->step.output_count, hidden = e->shape.hidden, vocabulary = e->shape.vocabulary;
  const bool want_logits = results & TCU_LOGITS, want_hidden = results & TCU_HIDDEN;
  if (!head.address || (want_logits && !e->host.logits)) return failed(TCU_ARGUMENT, "tcu_head: no head is bound, or nowhere to put the logits");
  if (want_hidden && !e->host.hidden) return failed(TCU_ARGUMENT, "tcu_head: nowhere to put the hidden rows");
  if (rows == 0) return TCU_OK;
  const float *norm = (const float *)e->model.output_norm;
  const int forms = form_of(head.format) | (want_hidden ? FORM_ROWS : 0);
  CHECK(norm_and_quantize(*e, e->b.normed, forms, e->b.x, norm, e->b.step.outputs, hidden, rows));
  if (want_hidden) CHECK(copy_words(*e, e->host.hidden, e->b.normed.rows, (int64_t)rows * hidden));
  /* logits that nobody looks at on the device go to the host as they come: a copy behind the product would take longer */
  const bool straight = want_logits && e->shape.top == 0 && rows <= DECODE_TOKENS;
  CHECK(matmul(*e, head, e->b.normed, straight ? e->host.logits : e->b.logits, vocabulary, MATMUL_STORE, nullptr, rows));
  if (e->shape.top > 0) CHECK(tell_top(*e, rows));
  if (want_logits && !straight) {
    const size_t bytes = (size_t)rows * (size_t)vocabulary * sizeof(float);
    CHECK_CUDA(cudaMemcpyAsync(e->host.logits, e->b.logits, bytes, cudaMemcpyDefault, e->stream));
  }
  return TCU_OK;
}
