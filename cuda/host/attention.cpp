/* x += output(attention(norm x)) */
#include <math.h>
#include <string.h>
#include <algorithm>
#include "engine.h"

/* f32 to f16, rounded to nearest even; too large becomes infinite, NaN stays NaN. */
static uint16_t half_of(float f) {
  uint32_t bits;
  memcpy(&bits, &f, sizeof bits);
  const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
  const uint32_t size = bits & 0x7fffffff;
  if (size > 0x7f800000) return sign | 0x7e00;
  if (size > 0x477fefff) return sign | 0x7c00;
  /* below the normal numbers adding 1/2 leaves the multiple of 2^-24 in the low bits */
  if (size < 113u << 23) {
    const float shifted = float_of_bits(size) + 0.5f;
    memcpy(&bits, &shifted, sizeof bits);
    return (uint16_t)(sign | (bits - 0x3f000000));
  }
  return (uint16_t)(sign | (size + (size >> 13 & 1) + 0xfff - (112u << 23)) >> 13);
}

/* Norm, if any, and rotation of the pairs (i, i + rotary / 2) of one head: f32[head_dim]. */
static void rope_head(const tcu_shape &s, float *head, const float *norm, const float *angles) {
  if (norm) norm_row(head, head, norm, s.head_dim, s.epsilon);
  const int pairs = s.rotary / 2;
  for (int i = 0; i < pairs; i++) {
    const float a = head[i], b = head[i + pairs], cosine = angles[i], sine = angles[pairs + i];
    head[i] = a * cosine - b * sine;
    head[i + pairs] = a * sine + b * cosine;
  }
}

/* Rotates token t's queries in place; its keys and values go to the caches. */
static void store_token(const tcu_engine &e, const tcu_layer &l, int t) {
  const tcu_shape &s = e.shape;
  const size_t head_dim = (size_t)s.head_dim;
  const float *angles = e.b.step.angles + (size_t)t * (size_t)s.rotary;
  float *q = e.b.qkv + (size_t)t * (size_t)(s.heads + 2 * s.kv_heads) * head_dim, *k = q + (size_t)s.heads * head_dim, *v = k + (size_t)s.kv_heads * head_dim;
  for (int h = 0; h < s.heads; h++) rope_head(s, q + (size_t)h * head_dim, (const float *)l.q_norm, angles);
  const int row = e.b.step.cache_rows[t];
  for (int h = 0; h < s.kv_heads; h++, k += head_dim, v += head_dim) {
    rope_head(s, k, (const float *)l.k_norm, angles);
    const size_t head = (size_t)(row / KV_BLOCK_TOKENS) * (size_t)s.kv_heads + (size_t)h;
    const size_t at = (head * KV_BLOCK_TOKENS + (size_t)(row % KV_BLOCK_TOKENS)) * head_dim;
    std::transform(k, k + head_dim, (uint16_t *)l.key_cache + at, half_of);
    std::transform(v, v + head_dim, (uint16_t *)l.value_cache + at, half_of);
  }
}

/* weights: f32[count] = softmax of scores, in place. */
static void softmax(float *scores, int count) {
  const float most = *std::max_element(scores, scores + count);
  float sum = 0;
  for (int i = 0; i < count; i++) sum += scores[i] = expf(scores[i] - most);
  for (int i = 0; i < count; i++) scores[i] /= sum;
}

/* What attention of one token and one KV head works with. */
struct workspace {
  std::vector<float> wide;   /* f32[head_dim]: one key or value */
  std::vector<float> scores; /* f32[group, keys] */
};

/* Token t's heads that share kv_head: out: f32[group, head_dim] */
static void attend_heads(const tcu_engine &e, const tcu_layer &l, int t, int kv_head, workspace &work) {
  const tcu_shape &s = e.shape;
  const int group = s.heads / s.kv_heads, keys = e.b.step.positions[t] + 1;
  const size_t head_dim = (size_t)s.head_dim, first = (size_t)kv_head * (size_t)group * head_dim;
  const float *q = e.b.qkv + (size_t)t * (size_t)(s.heads + 2 * s.kv_heads) * head_dim + first;
  float *out = e.b.attended.rows + (size_t)t * (size_t)s.heads * head_dim + first;
  const int32_t *table = e.b.step.block_tables + (size_t)e.b.step.run_of_token[t] * (size_t)s.blocks_per_sequence;
  const float scale = 1 / sqrtf((float)s.head_dim);
  float *wide = work.wide.data(), *scores = work.scores.data();

  const auto widen = [&](uint64_t cache, int key) {
    const size_t head = (size_t)table[key / KV_BLOCK_TOKENS] * (size_t)s.kv_heads + (size_t)kv_head;
    const uint16_t *from = (const uint16_t *)cache + (head * KV_BLOCK_TOKENS + (size_t)(key % KV_BLOCK_TOKENS)) * head_dim;
    std::transform(from, from + head_dim, wide, half_to_float);
  };
  for (int key = 0; key < keys; key++) {
    widen(l.key_cache, key);
    for (int h = 0; h < group; h++) {
      float sum = 0;
      for (size_t d = 0; d < head_dim; d++) sum += q[(size_t)h * head_dim + d] * wide[d];
      scores[h * keys + key] = sum * scale;
    }
  }
  for (int h = 0; h < group; h++) softmax(scores + h * keys, keys);
  std::fill_n(out, (size_t)group * head_dim, 0.0f);
  for (int key = 0; key < keys; key++) {
    widen(l.value_cache, key);
    for (int h = 0; h < group; h++) {
      const float weight = scores[h * keys + key];
      for (size_t d = 0; d < head_dim; d++) out[(size_t)h * head_dim + d] += weight * wide[d];
    }
  }
}

static int attend(const tcu_engine &e, const layer_binding &layer, const tcu_step &step) {
  const tcu_shape &s = e.shape;
  const tcu_layer &l = layer.weights;
  const int tokens = step.token_count, width = s.heads * s.head_dim, kv_width = s.kv_heads * s.head_dim, stride = width + 2 * kv_width;
  norm_rows(e.b.normed, layer.attention_forms, e.b.x, (const float *)l.attention_norm, s.hidden, tokens, s.epsilon);
  matmul(e.b.qkv, stride, MATMUL_STORE, l.q, 0, e.b.normed, nullptr, (const float *)l.q_bias, tokens);
  matmul(e.b.qkv + width, stride, MATMUL_STORE, l.k, 0, e.b.normed, nullptr, (const float *)l.k_bias, tokens);
  matmul(e.b.qkv + width + kv_width, stride, MATMUL_STORE, l.v, 0, e.b.normed, nullptr, (const float *)l.v_bias, tokens);
  for (int t = 0; t < tokens; t++) store_token(e, l, t);
  workspace work{std::vector<float>((size_t)s.head_dim), std::vector<float>((size_t)(s.heads / s.kv_heads) * (size_t)step.most_keys)};
  for (int t = 0; t < tokens; t++) {
    for (int h = 0; h < s.kv_heads; h++) attend_heads(e, l, t, h, work);
  }
  make_forms(e.b.attended, form_of(l.output.format), width, tokens);
  matmul(e.b.x, s.hidden, MATMUL_ADD, l.output, 0, e.b.attended, nullptr, nullptr, tokens);
  return TCU_OK;
}

int tcu_attention(tcu_engine *e, int32_t layer) {
  CHECK(enter_layer(e, layer));
  const layer_binding &binding = e->layers[(size_t)layer];
  if (!has_matrix(binding.weights.q)) return failed(TCU_ARGUMENT, "tcu_attention: layer %d has none here", layer);
  queue_stage(*e, "attention", [e, binding, step = e->step] { return attend(*e, binding, step); });
  return TCU_OK;
}
