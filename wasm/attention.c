/*
 * rope_store and attend, and the order inside a KV block, which only they know:
 *   keys    f16[head_dim, 32 tokens]: transposed, so that one vector holds the same element of several keys and scores need no horizontal sums
 *   values  f16[32 tokens, head_dim]
 */
#include "exp.h"
#include "half.h"
#include "kernels.h"
#include "norm.h"

/* Bytes of one KV head in one block. */
static size_t head_block_bytes(int head_dim) { return (size_t)KV_BLOCK_TOKENS * (size_t)head_dim * 2; }

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

static void widen_f16(float *y, const uint8_t *x, int count) {
  const struct constants constants = read_constants();
  for (int i = 0; i < count; i += 4) wasm_v128_store(y + i, load_any_f16x4(x + 2 * i, constants));
}

/* scores: f32[32] = scale * q . keys; keys: f32[head_dim, 32]. One multiply-add per element of q, in order. */
static void score_block(float *scores, const float *q, const float *keys, int head_dim, float scale) {
  v128_t sum[8];
  UNROLL for (int i = 0; i < 8; i++) sum[i] = wasm_f32x4_splat(0);
  for (int d = 0; d < head_dim; d++, keys += KV_BLOCK_TOKENS) {
    const v128_t element = wasm_v128_load32_splat(q + d);
    UNROLL for (int i = 0; i < 8; i++) sum[i] = madd(element, load(keys + 4 * i), sum[i]);
  }
  UNROLL for (int i = 0; i < 8; i++) wasm_v128_store(scores + 4 * i, wasm_f32x4_mul(sum[i], wasm_f32x4_splat(scale)));
}

/* The running softmax of one query head: the largest score so far and the sum of e^(score - largest). */
struct softmax {
  float largest, sum;
};

/* Turns the scores of `visible` keys into weights e^(score - largest), updates `state`, returns the factor for what was summed before. */
static float weigh_block(float *scores, struct softmax *state, int visible, int is_first) {
  const v128_t lowest = wasm_f32x4_splat(-__builtin_inff());
  v128_t most = lowest;
  for (int i = 0; i < KV_BLOCK_TOKENS; i += 4) {
    const v128_t lane = wasm_i32x4_add(wasm_i32x4_const(0, 1, 2, 3), wasm_i32x4_splat(i));
    const v128_t score = wasm_v128_bitselect(load(scores + i), lowest, wasm_i32x4_lt(lane, wasm_i32x4_splat(visible)));
    wasm_v128_store(scores + i, score);
    most = wasm_f32x4_max(most, score);
  }
  const float block_largest = max_lanes(most);
  const float largest = is_first || block_largest > state->largest ? block_largest : state->largest;
  v128_t sum = wasm_f32x4_splat(0);
  for (int i = 0; i < KV_BLOCK_TOKENS; i += 4) {
    const v128_t weight = exp_f32x4(wasm_f32x4_sub(load(scores + i), wasm_f32x4_splat(largest)));
    wasm_v128_store(scores + i, weight);
    sum = wasm_f32x4_add(sum, weight);
  }
  const float factor = is_first ? 0 : exp_f32(state->largest - largest);
  state->sum = is_first ? sum_lanes(sum) : state->sum * factor + sum_lanes(sum);
  state->largest = largest;
  return factor;
}

/* out[0 .. 4 vectors] = factor * out + sum over keys of weights[key] * values[key][..]; the first block ignores what out held. */
INLINE void add_values(float *out, const float *values, const float *weights, int visible, float factor, int is_first, int head_dim, const int vectors) {
  v128_t sum[8];
  UNROLL for (int i = 0; i < vectors; i++) {
    sum[i] = is_first ? wasm_f32x4_splat(0) : wasm_f32x4_mul(load(out + 4 * i), wasm_f32x4_splat(factor));
  }
  for (int key = 0; key < visible; key++, values += head_dim) {
    const v128_t weight = wasm_v128_load32_splat(weights + key);
    UNROLL for (int i = 0; i < vectors; i++) sum[i] = madd(weight, load(values + 4 * i), sum[i]);
  }
  UNROLL for (int i = 0; i < vectors; i++) wasm_v128_store(out + 4 * i, sum[i]);
}

/* One query head against one block. */
static void attend_block(float *out, const float *q, const float *keys, const float *values, struct softmax *state, int visible, int is_first, int head_dim,
                         float scale) {
  float scores[KV_BLOCK_TOKENS];
  score_block(scores, q, keys, head_dim, scale);
  const float factor = weigh_block(scores, state, visible, is_first);
  int d = 0;
  for (; d + 32 <= head_dim; d += 32) add_values(out + d, values + d, scores, visible, factor, is_first, head_dim, 8);
  for (; d < head_dim; d += 4) add_values(out + d, values + d, scores, visible, factor, is_first, head_dim, 1);
}

enum { CHUNK_QUERIES = 4096 }; /* (token, head) pairs whose softmax state is kept at a time: 32 KiB of scratch */

int attend(float *out, int out_stride, const float *q, int q_stride, const uint8_t *key_cache, const uint8_t *value_cache, const int32_t *block_table,
           const int32_t *positions, int token_begin, int token_count, int kv_head, int heads, int kv_heads, int head_dim, float scale, uint8_t *scratch) {
  if (heads <= 0 || kv_heads <= 0 || heads % kv_heads != 0 || kv_head < 0 || kv_head >= kv_heads) return STATUS_SHAPE;
  if (head_dim <= 0 || head_dim % 4 != 0 || token_begin < 0 || token_count < 0) return STATUS_SHAPE;
  const int group = heads / kv_heads, per_chunk = CHUNK_QUERIES / group;
  if (per_chunk == 0) return STATUS_SHAPE;
  struct softmax *states = (struct softmax *)scratch;
  float *keys = (float *)(scratch + CHUNK_QUERIES * sizeof(struct softmax));
  float *values = keys + (size_t)KV_BLOCK_TOKENS * (size_t)head_dim;
  const size_t block_bytes = head_block_bytes(head_dim);

  for (int first = token_begin; first < token_begin + token_count; first += per_chunk) {
    const int end = token_begin + token_count - first < per_chunk ? token_begin + token_count : first + per_chunk;
    /* positions ascend: the last token sees the most */
    for (int block = 0; block * KV_BLOCK_TOKENS <= positions[end - 1]; block++) {
      const size_t at = ((size_t)block_table[block] * (size_t)kv_heads + (size_t)kv_head) * block_bytes;
      widen_f16(keys, key_cache + at, KV_BLOCK_TOKENS * head_dim);
      widen_f16(values, value_cache + at, KV_BLOCK_TOKENS * head_dim);
      for (int t = first; t < end; t++) {
        const int ahead = positions[t] + 1 - block * KV_BLOCK_TOKENS;
        if (ahead <= 0) continue;
        const int visible = ahead < KV_BLOCK_TOKENS ? ahead : KV_BLOCK_TOKENS;
        const size_t head = (size_t)kv_head * (size_t)group * (size_t)head_dim;
        float *to = out + (size_t)t * (size_t)out_stride + head;
        const float *from = q + (size_t)t * (size_t)q_stride + head;
        struct softmax *state = states + (t - first) * group;
        for (int h = 0; h < group; h++, to += head_dim, from += head_dim)
          attend_block(to, from, keys, values, state + h, visible, block == 0, head_dim, scale);
      }
    }
    for (int t = first; t < end; t++) {
      float *to = out + (size_t)t * (size_t)out_stride + (size_t)kv_head * (size_t)group * (size_t)head_dim;
      for (int h = 0; h < group; h++, to += head_dim) {
        const float inverse = 1 / states[(t - first) * group + h].sum;
        for (int d = 0; d < head_dim; d++) to[d] *= inverse;
      }
    }
  }
  return STATUS_OK;
}
