/* Token ids to rows of the embedding, in any format. */
#include "launch.cuh"

enum { EMBED_THREADS = 128 };

/* y: f32[tokens, columns]; a block for a part of a row. A thread has 16 weights of a quantised format, or one of a float format. */
template <typename W>
__global__ void __launch_bounds__(EMBED_THREADS) embed_kernel(float *y, const uint8_t *matrix, const int32_t *ids, int columns) {
  let_next_start();
  wait_for_previous();
  const int t = (int)blockIdx.y, at = (int)(blockIdx.x * EMBED_THREADS + threadIdx.x);
  const uint8_t *row = matrix + (size_t)ids[t] * ((size_t)(columns / W::ELEMENTS) * W::BYTES);
  float *out = y + (size_t)t * (size_t)columns;
  if constexpr (W::ACTIVATION == ACTIVATION_F32) {
    if (at < columns) out[at] = W::value(row, at);
  } else {
    if (at >= columns / GROUP) return;
    const int groups = W::ELEMENTS / GROUP;
    int32_t words[4];
    float scale, minimum;
    W::unpack(row + (size_t)(at / groups) * W::BYTES, at % groups, words, scale, minimum);
    for (int i = 0; i < 4; i++) {
      float values[4];
      for (int k = 0; k < 4; k++) values[k] = scale * (float)(int8_t)(words[i] >> 8 * k) - minimum;
      ((float4 *)(out + at * GROUP))[i] = make_float4(values[0], values[1], values[2], values[3]);
    }
  }
}

int embed(tcu_engine &e) {
  const tcu_matrix &matrix = e.model.embedding;
  const int columns = matrix.columns;
  const auto launch = [&](auto format) {
    typedef decltype(format) W;
    const int activation = W::ACTIVATION, units = activation == ACTIVATION_F32 ? columns : columns / GROUP;
    const dim3 grid((unsigned)(units + EMBED_THREADS - 1) / EMBED_THREADS, (unsigned)e.step.token_count);
    launch_after(e, embed_kernel<W>, grid, EMBED_THREADS, 0, e.b.x, (const uint8_t *)matrix.address, e.b.step.token_ids, columns);
    CHECK_LAUNCH("embed_kernel");
    return (int)TCU_OK;
  };
  return with_format(matrix.format, launch, [&] { return failed(TCU_FORMAT, "embedding: no format %d", matrix.format); });
}
