/* normed = norm x; which experts every token goes to; and the slot for the pool, if the layer has one. */
#include <math.h>
#include <string.h>
#include <algorithm>
#include "engine.h"

#define SMALLEST_SUM 6.103515625e-5f /* the smallest normal f16: wasm/routing.c */

/* gates: f32[experts] from logits, in place. */
static void gate(float *logits, const tcu_shape &s) {
  if (s.gating == GATING_SIGMOID) {
    for (int i = 0; i < s.experts; i++) logits[i] = 1 / (1 + expf(-logits[i]));
    return;
  }
  const float most = *std::max_element(logits, logits + s.experts);
  float sum = 0;
  for (int i = 0; i < s.experts; i++) sum += logits[i] = expf(logits[i] - most);
  for (int i = 0; i < s.experts; i++) logits[i] /= sum;
}

/* One token: the `used` best by gate + bias, ties to the lower id, NaN last; ids ascending. Weights are the gates without bias. */
static void choose(int32_t *ids, float *weights, const float *gates, const float *bias, const tcu_shape &s) {
  const int used = s.experts_used;
  std::vector<int32_t> order((size_t)s.experts);
  for (int i = 0; i < s.experts; i++) order[(size_t)i] = i;
  const auto rank = [&](int32_t id) {
    const float value = gates[id] + (bias ? bias[id] : 0);
    return value == value ? value : -INFINITY;
  };
  std::partial_sort(order.begin(), order.begin() + used, order.end(), [&](int32_t a, int32_t b) { return rank(a) != rank(b) ? rank(a) > rank(b) : a < b; });
  std::sort(order.begin(), order.begin() + used);
  float sum = 0;
  for (int i = 0; i < used; i++) sum += gates[order[(size_t)i]];
  if (sum < SMALLEST_SUM) sum = SMALLEST_SUM; /* false for NaN, which stays */
  for (int i = 0; i < used; i++) {
    ids[i] = order[(size_t)i];
    const float weight = gates[ids[i]];
    weights[i] = (s.normalize_weights ? weight / sum : weight) * (s.weights_scale == 0 ? 1 : s.weights_scale);
  }
}

static void fill_slot(const tcu_engine &e, const tcu_slot &slot, int tokens) {
  const int hidden = e.shape.hidden, digits = e.shape.digits;
  const size_t pairs = (size_t)tokens * (size_t)e.shape.experts_used;
  for (int t = 0; t < tokens; t++) {
    const float *row = e.b.normed.rows + (size_t)t * (size_t)hidden;
    if (slot.normed) memcpy(slot.normed + (size_t)t * (size_t)hidden, row, (size_t)hidden * sizeof(float));
    if (slot.q8x32) write_record(slot.q8x32 + (size_t)t * record_bytes(FORM_Q8X32, hidden, digits), FORM_Q8X32, row, hidden, digits);
    if (slot.q8x256) write_record(slot.q8x256 + (size_t)t * record_bytes(FORM_Q8X256, hidden, digits), FORM_Q8X256, row, hidden, digits);
  }
  memcpy(slot.expert_ids, e.b.expert_ids, pairs * sizeof(int32_t));
  memcpy(slot.expert_weights, e.b.expert_weights, pairs * sizeof(float));
}

static int route(const tcu_engine &e, const layer_binding &layer, int tokens) {
  const tcu_shape &s = e.shape;
  const tcu_layer &l = layer.weights;
  norm_rows(e.b.normed, layer.ffn_forms, e.b.x, (const float *)l.ffn_norm, s.hidden, tokens, s.epsilon);
  matmul(e.b.router_logits, s.experts, MATMUL_STORE, l.router, 0, e.b.normed, nullptr, nullptr, tokens);
  for (int t = 0; t < tokens; t++) {
    float *logits = e.b.router_logits + (size_t)t * (size_t)s.experts;
    const size_t at = (size_t)t * (size_t)s.experts_used;
    gate(logits, s);
    choose(e.b.expert_ids + at, e.b.expert_weights + at, logits, (const float *)l.selection_bias, s);
  }
  if (layer.has_slot) fill_slot(e, layer.slot, tokens);
  return TCU_OK;
}

int tcu_router(tcu_engine *e, int32_t layer) {
  CHECK(enter_layer(e, layer));
  const layer_binding &binding = e->layers[(size_t)layer];
  if (!has_matrix(binding.weights.router)) return failed(TCU_ARGUMENT, "tcu_router: layer %d has none here", layer);
  const int tokens = e->step.token_count;
  queue_stage(*e, "router", [e, binding, tokens] { return route(*e, binding, tokens); });
  /* as early as the GPU's */
  const bool publishes = binding.has_slot && !binding.slot.holds && tokens <= DECODE_TOKENS;
  if (publishes) queue_publish(*e, binding.slot);
  e->published_layer = publishes ? layer : -1;
  return TCU_OK;
}
