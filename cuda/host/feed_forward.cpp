/* Gated feed-forward networks: the dense layers', the shared expert, the routed experts; and what adds them up. */
#include <math.h>
#include <string.h>
#include "engine.h"

/* y[t] (=, or +=) down(silu(gate x) * up x) of one expert, x[t] taken through index when it is not null: f32[tokens, hidden] */
static void feed_forward(const tcu_engine &e, float *y, int flags, const tcu_ffn &ffn, int expert, const int32_t *index, int tokens) {
  const int rows = ffn.gate.rows;
  float *gate = e.b.gated, *up = gate + rows;
  matmul(gate, 2 * rows, MATMUL_STORE, ffn.gate, expert, e.b.normed, index, nullptr, tokens);
  matmul(up, 2 * rows, MATMUL_STORE, ffn.up, expert, e.b.normed, index, nullptr, tokens);
  for (int t = 0; t < tokens; t++, gate += 2 * rows, up += 2 * rows) {
    float *hidden = e.b.hidden.rows + (size_t)t * (size_t)rows;
    for (int r = 0; r < rows; r++) hidden[r] = gate[r] / (1 + expf(-gate[r])) * up[r];
  }
  make_forms(e.b.hidden, form_of(ffn.down.format), rows, tokens);
  matmul(y, e.shape.hidden, flags, ffn.down, expert, e.b.hidden, nullptr, nullptr, tokens);
}

int tcu_dense_ffn(tcu_engine *e, int32_t layer) {
  CHECK(enter_layer(e, layer));
  const layer_binding &binding = e->layers[(size_t)layer];
  if (!has_matrix(binding.weights.dense.gate)) return failed(TCU_ARGUMENT, "tcu_dense_ffn: layer %d has none here", layer);
  queue_stage(*e, "dense ffn", [e, binding, tokens = e->step.token_count] {
    const tcu_layer &l = binding.weights;
    norm_rows(e->b.normed, binding.ffn_forms, e->b.x, (const float *)l.ffn_norm, e->shape.hidden, tokens, e->shape.epsilon);
    feed_forward(*e, e->b.x, MATMUL_ADD, l.dense, 0, nullptr, tokens);
    return TCU_OK;
  });
  return TCU_OK;
}

int tcu_shared_experts(tcu_engine *e, int32_t layer) {
  CHECK(enter_layer(e, layer));
  const layer_binding &binding = e->layers[(size_t)layer];
  if (!has_matrix(binding.weights.shared.gate)) return failed(TCU_ARGUMENT, "tcu_shared_experts: layer %d has none here", layer);
  queue_stage(*e, "shared experts", [e, binding, tokens = e->step.token_count] {
    feed_forward(*e, e->b.shared, MATMUL_STORE, binding.weights.shared, 0, nullptr, tokens);
    return TCU_OK;
  });
  return TCU_OK;
}

/* Experts in ascending order, each with all its tokens at once: a token's sum is always made in the same order. */
static int route_experts(const tcu_engine &e, const tcu_ffn &ffn, int tokens) {
  const int hidden = e.shape.hidden, used = e.shape.experts_used;
  memset(e.b.routed, 0, (size_t)tokens * (size_t)hidden * sizeof(float));
  std::vector<float> results((size_t)tokens * (size_t)hidden);
  for (int expert = 0; expert < e.shape.experts; expert++) {
    int32_t *of_token = e.b.pairs.pair_token;
    float *weights = e.b.pairs.pair_weight;
    int count = 0;
    for (int pair = 0; pair < tokens * used; pair++) {
      if (e.b.expert_ids[pair] != expert) continue;
      of_token[count] = pair / used;
      weights[count++] = e.b.expert_weights[pair];
    }
    if (count == 0) continue;
    feed_forward(e, results.data(), MATMUL_STORE, ffn, expert, of_token, count);
    for (int i = 0; i < count; i++) {
      const float *result = results.data() + (size_t)i * (size_t)hidden;
      float *routed = e.b.routed + (size_t)of_token[i] * (size_t)hidden;
      for (int c = 0; c < hidden; c++) routed[c] += weights[i] * result[c];
    }
  }
  return TCU_OK;
}

int tcu_routed_experts(tcu_engine *e, int32_t layer) {
  CHECK(enter_layer(e, layer));
  const layer_binding &binding = e->layers[(size_t)layer];
  if (!has_matrix(binding.weights.routed.gate)) return failed(TCU_ARGUMENT, "tcu_routed_experts: layer %d has none here", layer);
  queue_stage(*e, "routed experts", [e, binding, tokens = e->step.token_count] { return route_experts(*e, binding.weights.routed, tokens); });
  return TCU_OK;
}

int tcu_combine(tcu_engine *e, int32_t layer) {
  CHECK(enter_layer(e, layer));
  const layer_binding &binding = e->layers[(size_t)layer];
  const float *routed = binding.has_slot ? binding.slot.routed : has_matrix(binding.weights.routed.gate) ? e->b.routed : nullptr;
  const float *shared = has_matrix(binding.weights.shared.gate) ? e->b.shared : nullptr;
  if (!routed && !shared) return failed(TCU_ARGUMENT, "tcu_combine: layer %d has no experts here", layer);
  queue_stage(*e, "combine", [e, routed, shared, count = (size_t)e->step.token_count * (size_t)e->shape.hidden] {
    for (size_t i = 0; i < count; i++) e->b.x[i] += (routed ? routed[i] : 0) + (shared ? shared[i] : 0);
    return TCU_OK;
  });
  return TCU_OK;
}
