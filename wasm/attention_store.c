/* rope_store: norm and rotation of q and k, and the way of keys and values into the cache (attention.h has the order inside a block). */
#include "attention.h"
#include "kernels.h"
#include "norm.h"

/* Norm (if any) and rotation of one head vector: f32[head_dim], from x to y (may be the same). */
static void rope_head(float *y, const float *x, const float *norm, const float *angles, int head_dim, int rotary, float epsilon) {
  const float factor = norm ? inverse_rms(x, head_dim, epsilon) : 1;
  for (int i = 0; i < head_dim; i++) y[i] = norm ? x[i] * factor * norm[i] : x[i];
  const int pairs = rotary / 2;
  const float *cosines = angles, *sines = angles + pairs;
  for (int i = 0; i < pairs; i++) {
    const float a = y[i], b = y[i + pairs];
    y[i] = a * cosines[i] - b * sines[i];
    y[i + pairs] = a * sines[i] + b * cosines[i];
  }
}

/* Puts one token's key where it belongs in the block. */
static void store_key(uint8_t *block, float *scales, const float *x, int head_dim, int token) {
  const struct grid grid = find_grid(x, head_dim, ELEMENT_LIMIT, NORM_LIMIT);
  const v128_t inverse = wasm_f32x4_splat(grid.inverse);
  const int place = token_place(token), strip = place / STRIP_TOKENS;
  int16_t *to = (int16_t *)block + strip * STRIP_TOKENS * head_dim + place % STRIP_TOKENS * 2;
  for (int i = 0; i < head_dim; i += 4, to += 4 * STRIP_TOKENS) {
    const v128_t steps = to_grid(load(x + i), inverse);
    to[0] = (int16_t)wasm_i32x4_extract_lane(steps, 0);
    to[1] = (int16_t)wasm_i32x4_extract_lane(steps, 1);
    to[2 * STRIP_TOKENS] = (int16_t)wasm_i32x4_extract_lane(steps, 2);
    to[2 * STRIP_TOKENS + 1] = (int16_t)wasm_i32x4_extract_lane(steps, 3);
  }
  scales[place] = grid.scale;
}

/* The same with its value. */
static void store_value(uint8_t *block, float *scales, const float *x, int head_dim, int token) {
  const struct grid grid = find_grid(x, head_dim, VALUE_LIMIT, 0);
  const v128_t inverse = wasm_f32x4_splat(grid.inverse);
  const int whole = head_dim / COLUMN_WIDTH * COLUMN_WIDTH;
  for (int i = 0; i < head_dim; i += 4) {
    const v128_t steps = to_grid(load(x + i), inverse);
    const int begin = i < whole ? i / COLUMN_WIDTH * COLUMN_WIDTH : i, width = i < whole ? COLUMN_WIDTH : 4;
    int16_t *to = (int16_t *)block + begin * KV_BLOCK_TOKENS + token / 2 * (2 * width) + (i - begin) * 2 + token % 2;
    to[0] = (int16_t)wasm_i32x4_extract_lane(steps, 0);
    to[2] = (int16_t)wasm_i32x4_extract_lane(steps, 1);
    to[4] = (int16_t)wasm_i32x4_extract_lane(steps, 2);
    to[6] = (int16_t)wasm_i32x4_extract_lane(steps, 3);
  }
  scales[token_place(token)] = grid.scale;
}

int rope_store(float *q, int q_stride, const float *k, const float *v, int kv_stride, uint8_t *key_cache, uint8_t *value_cache, const int32_t *cache_rows,
               const float *angles, const float *q_norm, const float *k_norm, int heads, int kv_heads, int head_dim, int rotary, float epsilon,
               int token_begin, int token_end) {
  if (heads <= 0 || kv_heads <= 0 || head_dim <= 0 || head_dim % 4 != 0 || head_dim > MAX_HEAD_DIM) return STATUS_SHAPE;
  if (rotary < 0 || rotary % 2 != 0 || rotary > head_dim || token_begin < 0 || token_begin > token_end) return STATUS_SHAPE;
  float rotated[MAX_HEAD_DIM];
  const size_t block_bytes = head_block_bytes(head_dim);
  for (int t = token_begin; t < token_end; t++) {
    const float *token_angles = angles + (size_t)t * (size_t)rotary;
    float *token_q = q + (size_t)t * (size_t)q_stride;
    for (int h = 0; h < heads; h++, token_q += head_dim) rope_head(token_q, token_q, q_norm, token_angles, head_dim, rotary, epsilon);

    const size_t kv = (size_t)t * (size_t)kv_stride;
    const int block = cache_rows[t] / KV_BLOCK_TOKENS, slot = cache_rows[t] % KV_BLOCK_TOKENS;
    for (int h = 0; h < kv_heads; h++) {
      const size_t index = head_block_index(block, h, kv_heads), at = index * block_bytes;
      rope_head(rotated, k + kv + (size_t)h * (size_t)head_dim, k_norm, token_angles, head_dim, rotary, epsilon);
      store_key(key_cache + at, head_block_scales(key_cache, index), rotated, head_dim, slot);
      store_value(value_cache + at, head_block_scales(value_cache, index), v + kv + (size_t)h * (size_t)head_dim, head_dim, slot);
    }
  }
  return STATUS_OK;
}
