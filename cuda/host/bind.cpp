/* What an engine is given before its first step, and whether it fits together. */
#include "engine.h"

int tcu_attach(tcu_engine *e, const tcu_host *host) {
  CHECK(enter(e));
  if (!host) return failed(TCU_ARGUMENT, "tcu_attach: nothing");
  const tcu_host &h = *host;
  const uint64_t outputs = (uint64_t)e->shape.outputs, best = outputs * (uint64_t)e->shape.top * 4;
  if (!h.poison || !h.published || !h.completed || !h.finished || !h.status || !h.logits || (best > 0 && (!h.top_ids || !h.top_logits))) {
    return failed(TCU_ARGUMENT, "tcu_attach: a null pointer");
  }
  CHECK(check_registered(*e, h.poison, 4, "poison"));
  CHECK(check_registered(*e, h.published, 12, "published"));
  CHECK(check_registered(*e, h.completed, 4, "completed"));
  CHECK(check_registered(*e, h.finished, 4, "finished"));
  CHECK(check_registered(*e, h.status, 4, "status"));
  CHECK(check_registered(*e, h.logits, outputs * (uint64_t)e->shape.vocabulary * 4, "logits"));
  CHECK(check_registered(*e, h.hidden, outputs * (uint64_t)e->shape.hidden * 4, "hidden"));
  if (best > 0) {
    CHECK(check_registered(*e, h.top_ids, best, "top_ids"));
    CHECK(check_registered(*e, h.top_logits, best, "top_logits"));
  }
  CHECK(check_registered(*e, h.marks, (uint64_t)h.mark_count * 8, "marks"));
  e->host = h;
  e->attached = true;
  return TCU_OK;
}

/* A matrix that is there: its format, its dimensions, and whether it lies in the engine's memory. */
static int check_matrix(const tcu_engine &e, const tcu_matrix &w, const char *what, int rows, int columns, int experts = 1) {
  if (form_of(w.format) == 0) return failed(TCU_FORMAT, "%s: format %d", what, w.format);
  if (w.rows != rows || w.columns != columns || matrix_bytes(w) == 0) {
    return failed(TCU_SHAPE, "%s: [%d, %d] where [%d, %d] in whole blocks is wanted", what, w.rows, w.columns, rows, columns);
  }
  if (experts > 1 && (w.experts != experts || w.expert_bytes < matrix_bytes(w))) return failed(TCU_SHAPE, "%s: %d of %d experts", what, w.experts, experts);
  const uint64_t bytes = (uint64_t)(experts - 1) * w.expert_bytes + matrix_bytes(w);
  return owns(e, w.address, bytes) ? TCU_OK : failed(TCU_ARGUMENT, "%s: not in the engine's memory", what);
}

static int check_vector(const tcu_engine &e, uint64_t address, int count, const char *what) {
  if (address == 0 || owns(e, address, (uint64_t)count * 4)) return TCU_OK;
  return failed(TCU_ARGUMENT, "%s: not in the engine's memory", what);
}

static int check_ffn(const tcu_engine &e, const tcu_ffn &ffn, const char *what, int widest, int experts = 1) {
  if (!has_matrix(ffn.gate)) return TCU_OK;
  const int rows = ffn.gate.rows, hidden = e.shape.hidden;
  if (rows <= 0 || rows > widest) return failed(TCU_SHAPE, "%s: %d rows, the engine was opened for %d", what, rows, widest);
  CHECK(check_matrix(e, ffn.gate, what, rows, hidden, experts));
  CHECK(check_matrix(e, ffn.up, what, rows, hidden, experts));
  return check_matrix(e, ffn.down, what, hidden, rows, experts);
}

static int check_attention(const tcu_engine &e, const tcu_layer &l) {
  const tcu_shape &s = e.shape;
  if (!has_matrix(l.q)) return TCU_OK;
  const int width = s.heads * s.head_dim, kv_width = s.kv_heads * s.head_dim;
  CHECK(check_matrix(e, l.q, "q", width, s.hidden));
  CHECK(check_matrix(e, l.k, "k", kv_width, s.hidden));
  CHECK(check_matrix(e, l.v, "v", kv_width, s.hidden));
  CHECK(check_matrix(e, l.output, "attention output", s.hidden, width));
  if (l.attention_norm == 0) return failed(TCU_ARGUMENT, "attention norm: there is none");
  CHECK(check_vector(e, l.attention_norm, s.hidden, "attention norm"));
  CHECK(check_vector(e, l.q_bias, width, "q bias"));
  CHECK(check_vector(e, l.k_bias, kv_width, "k bias"));
  CHECK(check_vector(e, l.v_bias, kv_width, "v bias"));
  CHECK(check_vector(e, l.q_norm, s.head_dim, "q norm"));
  CHECK(check_vector(e, l.k_norm, s.head_dim, "k norm"));
  const uint64_t cache = (uint64_t)s.kv_blocks * KV_BLOCK_TOKENS * (uint64_t)kv_width * 2;
  if (!owns(e, l.key_cache, cache) || !owns(e, l.value_cache, cache)) return failed(TCU_ARGUMENT, "KV cache: not in the engine's memory");
  return TCU_OK;
}

static int check_feed_forward(const tcu_engine &e, const tcu_layer &l) {
  const tcu_shape &s = e.shape;
  if (!has_matrix(l.dense.gate) && !has_matrix(l.router)) return TCU_OK;
  if (l.ffn_norm == 0) return failed(TCU_ARGUMENT, "ffn norm: there is none");
  CHECK(check_vector(e, l.ffn_norm, s.hidden, "ffn norm"));
  CHECK(check_ffn(e, l.dense, "dense", s.ffn));
  if (has_matrix(l.router)) CHECK(check_matrix(e, l.router, "router", s.experts, s.hidden));
  CHECK(check_vector(e, l.selection_bias, s.experts, "selection bias"));
  CHECK(check_ffn(e, l.shared, "shared experts", s.ffn));
  if (has_matrix(l.routed.gate) && !s.device_experts) return failed(TCU_ARGUMENT, "routed experts: the engine was opened without");
  return check_ffn(e, l.routed, "routed experts", s.ffn_expert, s.experts);
}

static int check_slot(const tcu_engine &e, const tcu_slot &slot) {
  const uint64_t tokens = (uint64_t)e.shape.ubatch, rows = tokens * (uint64_t)e.shape.hidden * 4, pairs = tokens * (uint64_t)e.shape.experts_used * 4;
  if (!slot.expert_ids || !slot.expert_weights || !slot.routed) return failed(TCU_ARGUMENT, "slot: a null pointer");
  if (slot.q8x256 && e.shape.hidden % 256 != 0) return failed(TCU_SHAPE, "slot: q8x256 records of %d columns", e.shape.hidden);
  CHECK(check_registered(e, slot.normed, rows, "slot, normed"));
  CHECK(check_registered(e, slot.q8x32, tokens * record_bytes(FORM_Q8X32, e.shape.hidden, e.shape.digits), "slot, q8x32"));
  CHECK(check_registered(e, slot.q8x256, tokens * record_bytes(FORM_Q8X256, e.shape.hidden, e.shape.digits), "slot, q8x256"));
  CHECK(check_registered(e, slot.expert_ids, pairs, "slot, expert_ids"));
  CHECK(check_registered(e, slot.expert_weights, pairs, "slot, expert_weights"));
  return check_registered(e, slot.routed, rows, "slot, routed");
}

static int form_if_there(const tcu_matrix &w) { return has_matrix(w) ? form_of(w.format) : 0; }

int tcu_bind_layer(tcu_engine *e, int32_t layer, const tcu_layer *weights, const tcu_slot *slot) {
  CHECK(enter(e));
  if (layer < 0 || layer >= e->shape.layers || !weights) return failed(TCU_ARGUMENT, "tcu_bind_layer: layer %d of %d", layer, e->shape.layers);
  const tcu_layer &l = *weights;
  CHECK(check_attention(*e, l));
  CHECK(check_feed_forward(*e, l));
  if (slot) CHECK(check_slot(*e, *slot));
  layer_binding &binding = e->layers[(size_t)layer];
  binding = {true, slot != nullptr, l, slot ? *slot : tcu_slot{}, 0, 0};
  for (const tcu_matrix &w : {l.q, l.k, l.v}) binding.attention_forms |= form_if_there(w);
  for (const tcu_matrix &w : {l.dense.gate, l.dense.up, l.router, l.shared.gate, l.shared.up, l.routed.gate, l.routed.up}) {
    binding.ffn_forms |= form_if_there(w);
  }
  return TCU_OK;
}

int tcu_bind_model(tcu_engine *e, const tcu_model *model) {
  CHECK(enter(e));
  if (!model) return failed(TCU_ARGUMENT, "tcu_bind_model: nothing");
  const tcu_shape &s = e->shape;
  if (has_matrix(model->embedding)) CHECK(check_matrix(*e, model->embedding, "embedding", s.vocabulary, s.hidden));
  if (has_matrix(model->head)) {
    CHECK(check_matrix(*e, model->head, "head", s.vocabulary, s.hidden));
    if (model->output_norm == 0) return failed(TCU_ARGUMENT, "output norm: there is none");
    CHECK(check_vector(*e, model->output_norm, s.hidden, "output norm"));
  }
  e->model = *model;
  e->has_model = true;
  return TCU_OK;
}
