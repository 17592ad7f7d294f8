/* The stages: each queues its parts on the engine's stream. What is bound was checked by tcu_bind_layer (bind.cu). */
#include "engine.cuh"

/* TCU_ARGUMENT for a stage whose weights the layer has not. */
static int absent(const char *stage, int layer) { return failed(TCU_ARGUMENT, "%s: layer %d was bound without it", stage, layer); }

static layer_binding &binding(tcu_engine *e, int layer) { return e->layers[(size_t)layer]; }

int tcu_embed(tcu_engine *e) {
  CHECK(enter_step(e));
  if (!e->has_model || !e->model.embedding.address) return failed(TCU_ARGUMENT, "tcu_embed: no embedding is bound");
  return embed(*e);
}

int tcu_attention(tcu_engine *e, int32_t layer) {
  const bool normed_already = e && e->normed_layer == layer;
  CHECK(enter_layer(e, layer));
  const layer_binding &l = binding(e, layer);
  const tcu_layer &w = l.weights;
  const tcu_shape &s = e->shape;
  if (!w.q.address) return absent("tcu_attention", layer);
  const int tokens = e->step.token_count, q = s.heads * s.head_dim, kv = s.kv_heads * s.head_dim;
  const activations &normed = e->b.normed;
  if (!normed_already) CHECK(norm_and_quantize(*e, normed, l.normed_forms, e->b.x, (const float *)w.attention_norm, nullptr, s.hidden, tokens));
  const stacked_matrix qkv[] = {{w.q, (const float *)w.q_bias}, {w.k, (const float *)w.k_bias}, {w.v, (const float *)w.v_bias}};
  CHECK(matmul_stacked(*e, qkv, 3, normed, e->b.qkv, q + 2 * kv, tokens));
  CHECK(attend(*e, l, form_of(w.output.format)));
  return matmul(*e, w.output, e->b.attended, e->b.x, s.hidden, MATMUL_ADD, nullptr, tokens);
}

int tcu_dense_ffn(tcu_engine *e, int32_t layer) {
  CHECK(enter_layer(e, layer));
  const layer_binding &l = binding(e, layer);
  const tcu_layer &w = l.weights;
  if (!w.dense.gate.address) return absent("tcu_dense_ffn", layer);
  const int tokens = e->step.token_count, hidden = e->shape.hidden;
  CHECK(norm_and_quantize(*e, e->b.normed, l.shared_forms, e->b.x, (const float *)w.ffn_norm, nullptr, hidden, tokens));
  CHECK(gated(*e, w.dense, e->b.normed, tokens));
  return matmul(*e, w.dense.down, e->b.hidden, e->b.x, hidden, MATMUL_ADD, nullptr, tokens);
}

int tcu_router(tcu_engine *e, int32_t layer) {
  CHECK(enter_layer(e, layer));
  const layer_binding &l = binding(e, layer);
  const tcu_layer &w = l.weights;
  const tcu_shape &s = e->shape;
  if (!w.router.address) return absent("tcu_router", layer);
  const int tokens = e->step.token_count;
  CHECK(norm_and_quantize(*e, e->b.normed, l.shared_forms, e->b.x, (const float *)w.ffn_norm, nullptr, s.hidden, tokens));
  CHECK(matmul(*e, w.router, e->b.normed, e->b.router_logits, s.experts, MATMUL_STORE, nullptr, tokens));
  /* for few tokens a launch of its own would take longer than what it does: the kernel that fills the slot tells the pool as well */
  const bool publishes = l.has_slot && !l.slot.holds && tokens <= DECODE_TOKENS;
  CHECK(route(*e, l, publishes));
  e->published_layer = publishes ? layer : -1;
  return TCU_OK;
}

int tcu_publish(tcu_engine *e, int32_t layer) {
  CHECK(enter_layer(e, layer));
  const layer_binding &l = binding(e, layer);
  if (!l.has_slot) return absent("tcu_publish", layer);
  const bool told = e->published_layer == layer;
  e->published_layer = -1;
  return told ? TCU_OK : publish(*e, l);
}

int tcu_shared_experts(tcu_engine *e, int32_t layer) {
  CHECK(enter_layer(e, layer));
  const tcu_ffn &shared = binding(e, layer).weights.shared;
  if (!shared.gate.address) return absent("tcu_shared_experts", layer);
  const int tokens = e->step.token_count;
  CHECK(gated(*e, shared, e->b.normed, tokens));
  return matmul(*e, shared.down, e->b.hidden, e->b.shared, e->shape.hidden, MATMUL_STORE, nullptr, tokens);
}

int tcu_routed_experts(tcu_engine *e, int32_t layer) {
  CHECK(enter_layer(e, layer));
  const tcu_ffn &routed = binding(e, layer).weights.routed;
  if (!routed.gate.address) return absent("tcu_routed_experts", layer);
  const int tokens = e->step.token_count;
  return suits_matvec(*e, tokens) ? matvec_experts(*e, routed, tokens) : experts_tiles(*e, routed, tokens);
}

int tcu_await_routed(tcu_engine *e, int32_t layer) {
  CHECK(enter_layer(e, layer));
  if (!binding(e, layer).has_slot) return absent("tcu_await_routed", layer);
  return await_routed(*e);
}

int tcu_combine(tcu_engine *e, int32_t layer) {
  CHECK(enter_layer(e, layer));
  const layer_binding &l = binding(e, layer);
  if (!l.has_slot && !l.weights.routed.gate.address) return absent("tcu_combine", layer);
  const float *routed = l.has_slot ? l.slot.routed : e->b.routed, *shared = l.weights.shared.gate.address ? e->b.shared : nullptr;
  /* for few tokens the next layer's norm is done on the way: one launch less, and x is at hand */
  const layer_binding *next = layer + 1 < e->shape.layers ? &binding(e, layer + 1) : nullptr;
  if (!next || !next->weights.q.address || e->step.token_count > DECODE_TOKENS) return combine(*e, routed, shared);
  CHECK(combine_and_norm(*e, routed, shared, e->b.normed, next->normed_forms, (const float *)next->weights.attention_norm));
  e->normed_layer = layer + 1;
  return TCU_OK;
}
