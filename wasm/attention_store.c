/* rope_store: norm and rotation of q and k, and the way of keys and values into the cache (attention.h has the order inside a block). */
#include "attention.h"
#include "half.h"
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

/* Writes f32[head_dim] as f16 with `stride` elements between neighbours. */
static void store_f16(uint16_t *to, const float *x, int head_dim, int stride) {
  for (int i = 0; i < head_dim; i += 4, to += 4 * stride) {
    const v128_t h = f32_to_f16(load(x + i));
    to[0] = (uint16_t)wasm_i32x4_extract_lane(h, 0);
    to[stride] = (uint16_t)wasm_i32x4_extract_lane(h, 1);
    to[2 * stride] = (uint16_t)wasm_i32x4_extract_lane(h, 2);
    to[3 * stride] = (uint16_t)wasm_i32x4_extract_lane(h, 3);
  }
}

enum { MAX_HEAD_DIM = 1024 }; /* one rotated key lies on the stack; real models have at most 576 */

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
      const size_t at = ((size_t)block * (size_t)kv_heads + (size_t)h) * block_bytes;
      rope_head(rotated, k + kv + (size_t)h * (size_t)head_dim, k_norm, token_angles, head_dim, rotary, epsilon);
      store_f16((uint16_t *)(key_cache + at) + slot, rotated, head_dim, KV_BLOCK_TOKENS);
      store_f16((uint16_t *)(value_cache + at) + (size_t)slot * (size_t)head_dim, v + kv + (size_t)h * (size_t)head_dim, head_dim, 1);
    }
  }
  return STATUS_OK;
}
