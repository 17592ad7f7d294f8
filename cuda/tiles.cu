/* matmul_tiles: one matrix times any number of tokens. */
#include "tiles.cuh"

bool has_wide_tiles(int format) {
  return with_quantized_format(format, [](auto) { return true; }, [] { return false; });
}

int tile_product(tcu_engine &e, int format, const tile_job &job, int tile_vectors, int token_tiles) {
  return has_wide_tiles(format) ? quantized_tiles(e, format, job, tile_vectors, token_tiles) : float_tiles(e, format, job, token_tiles);
}

int matmul_tiles(tcu_engine &e, const tcu_matrix &w, const activations &x, float *y, int y_stride, int flags, const float *bias, int tokens) {
  if (tokens == 0) return TCU_OK;
  tile_job job = {};
  job.weights[0] = (const uint8_t *)w.address;
  job.rows = w.rows, job.columns = w.columns;
  job.x = x;
  job.bias = bias;
  job.y = y, job.y_stride = y_stride;
  job.add = flags & MATMUL_ADD;
  job.tokens = tokens;
  /* Tiles of 128 vectors decode a weight half as often, but they have to fill the device: two of them fit a multiprocessor. */
  const int digits = has_wide_tiles(w.format) ? x.digits : 1, row_tiles = (w.rows + TILE_ROWS - 1) / TILE_ROWS, wide_tiles = (tokens * digits + 127) / 128;
  const int tile_vectors = has_wide_tiles(w.format) && (int64_t)row_tiles * wide_tiles >= e.multiprocessors ? 128 : 64;
  job.tile_tokens = tile_vectors / digits;
  return tile_product(e, w.format, job, tile_vectors, (tokens + job.tile_tokens - 1) / job.tile_tokens);
}
