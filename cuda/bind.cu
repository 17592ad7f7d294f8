/* Weights, slots and the host's words: everything is checked here once, so that the stages need not. */
#include "engine.cuh"

/* Bytes of one row as the file has it; 0 for a format that is not known. */
static uint64_t row_bytes(int format, int columns) {
  const auto bytes = [columns](auto row) { return (uint64_t)columns / decltype(row)::ELEMENTS * decltype(row)::BYTES; };
  return with_format(format, bytes, [] { return (uint64_t)0; });
}

/* rows, columns: what the shape wants; experts 0 or 1: one matrix. Nothing is wrong with a matrix that is absent. */
static int check_fit(const tcu_engine &e, const tcu_matrix &m, const char *what, int rows, int columns, int experts) {
  if (!m.address) return TCU_OK;
  CHECK(check_matrix(m, what));
  const int have = m.experts > 1 ? m.experts : 1, want = experts > 1 ? experts : 1;
  if (m.rows != rows || m.columns != columns || have != want) {
    return failed(TCU_SHAPE, "%s: %d matrices of %d x %d, but the shape wants %d of %d x %d", what, have, m.rows, m.columns, want, rows, columns);
  }
  const uint64_t bytes = (uint64_t)rows * row_bytes(m.format, columns);
  if (have > 1 && m.expert_bytes < bytes) return failed(TCU_SHAPE, "%s: experts of %llu bytes overlap", what, (unsigned long long)bytes);
  if (!owns(e, m.address, bytes + (uint64_t)(have - 1) * m.expert_bytes)) return failed(TCU_ARGUMENT, "%s: not the engine's memory", what);
  return TCU_OK;
}

/* f32[count] on the device, or nothing. */
static int check_vector(const tcu_engine &e, uint64_t address, int count, const char *what) {
  if (!address || owns(e, address, (uint64_t)count * sizeof(float))) return TCU_OK;
  return failed(TCU_ARGUMENT, "%s: not the engine's memory", what);
}

/* All three matrices or none, of rows up to `widest`, which is what the buffers were made for. */
static int check_ffn(const tcu_engine &e, const tcu_ffn &ffn, const char *what, int widest, int experts) {
  if (!ffn.gate.address && !ffn.up.address && !ffn.down.address) return TCU_OK;
  if (!ffn.gate.address || !ffn.up.address || !ffn.down.address) return failed(TCU_ARGUMENT, "%s: gate, up or down is missing", what);
  const int hidden = e.shape.hidden, rows = ffn.gate.rows;
  if (rows > widest) return failed(TCU_SHAPE, "%s: rows of %d, the engine was opened for %d", what, rows, widest);
  CHECK(check_fit(e, ffn.gate, what, rows, hidden, experts));
  CHECK(check_fit(e, ffn.up, what, rows, hidden, experts));
  return check_fit(e, ffn.down, what, hidden, rows, experts);
}

static int check_layer(const tcu_engine &e, const tcu_layer &w) {
  const tcu_shape &s = e.shape;
  const int q = s.heads * s.head_dim, kv = s.kv_heads * s.head_dim;
  CHECK(check_vector(e, w.attention_norm, s.hidden, "attention_norm"));
  CHECK(check_vector(e, w.q_bias, q, "q_bias"));
  CHECK(check_vector(e, w.k_bias, kv, "k_bias"));
  CHECK(check_vector(e, w.v_bias, kv, "v_bias"));
  CHECK(check_vector(e, w.q_norm, s.head_dim, "q_norm"));
  CHECK(check_vector(e, w.k_norm, s.head_dim, "k_norm"));
  CHECK(check_vector(e, w.ffn_norm, s.hidden, "ffn_norm"));
  CHECK(check_vector(e, w.selection_bias, s.experts, "selection_bias"));
  CHECK(check_fit(e, w.q, "q", q, s.hidden, 1));
  CHECK(check_fit(e, w.k, "k", kv, s.hidden, 1));
  CHECK(check_fit(e, w.v, "v", kv, s.hidden, 1));
  CHECK(check_fit(e, w.output, "output", s.hidden, q, 1));
  CHECK(check_fit(e, w.router, "router", s.experts, s.hidden, 1));
  CHECK(check_ffn(e, w.dense, "dense", s.ffn, 1));
  CHECK(check_ffn(e, w.shared, "shared", s.ffn, 1));
  CHECK(check_ffn(e, w.routed, "routed", s.device_experts ? s.ffn_expert : 0, s.experts));
  const uint64_t cache = (uint64_t)s.kv_blocks * KV_BLOCK_TOKENS * (uint64_t)kv * sizeof(__half);
  if (w.q.address) {
    if (!w.attention_norm || !w.k.address || !w.v.address || !w.output.address) return failed(TCU_ARGUMENT, "attention: a weight is missing");
    if (!owns(e, w.key_cache, cache) || !owns(e, w.value_cache, cache)) return failed(TCU_ARGUMENT, "a KV cache is not the engine's memory");
  }
  if ((w.dense.gate.address || w.router.address) && !w.ffn_norm) return failed(TCU_ARGUMENT, "ffn_norm is missing");
  return TCU_OK;
}

/* The slot's addresses as the device sees them. */
static int see_slot(const tcu_engine &e, const tcu_slot &host, tcu_slot &slot) {
  const tcu_shape &s = e.shape;
  if (!host.expert_ids || !host.expert_weights || !host.routed) return failed(TCU_ARGUMENT, "slot: no ids, weights or routed");
  if (host.q8x256 && s.hidden % 256 != 0) return failed(TCU_SHAPE, "slot: hidden %d has no records of 256", s.hidden);
  const uint64_t tokens = (uint64_t)s.ubatch, hidden = (uint64_t)s.hidden, pairs = tokens * (uint64_t)s.experts_used, vectors = tokens * (uint64_t)s.digits;
  const auto see = [&e](const void *address, uint64_t alignment, uint64_t bytes, const char *what, auto &device) {
    if ((uint64_t)address % alignment != 0) return failed(TCU_ARGUMENT, "%s is not on %llu bytes", what, (unsigned long long)alignment);
    return device_address(e, address, bytes, what, (void **)&device);
  };
  slot.entry = host.entry;
  slot.holds = host.holds;
  CHECK(see(host.normed, 16, tokens * hidden * 4, "slot.normed", slot.normed));
  CHECK(see(host.q8x32, 4, vectors * (hidden / 32) * 40, "slot.q8x32", slot.q8x32));
  CHECK(see(host.q8x256, 4, vectors * (hidden / 256) * 324, "slot.q8x256", slot.q8x256));
  CHECK(see(host.expert_ids, 4, pairs * 4, "slot.expert_ids", slot.expert_ids));
  CHECK(see(host.expert_weights, 4, pairs * 4, "slot.expert_weights", slot.expert_weights));
  return see(host.routed, 16, tokens * hidden * 4, "slot.routed", slot.routed);
}

/* The form that a matrix wants, none when there is no matrix. */
static int wanted(const tcu_matrix &m) { return m.address ? form_of(m.format) : 0; }

/* Forms of normed that the feed-forward part reads, the slot's included. */
static int feed_forward_forms(const layer_binding &layer) {
  const tcu_layer &w = layer.weights;
  int forms = wanted(w.dense.gate) | wanted(w.dense.up) | wanted(w.router) | wanted(w.shared.gate) | wanted(w.shared.up);
  forms |= wanted(w.routed.gate) | wanted(w.routed.up);
  if (!layer.has_slot) return forms;
  if (layer.slot.normed) forms |= FORM_ROWS;
  if (layer.slot.q8x32) forms |= FORM_Q8X32;
  if (layer.slot.q8x256) forms |= FORM_Q8X256;
  return forms;
}

int tcu_bind_layer(tcu_engine *e, int32_t layer, const tcu_layer *weights, const tcu_slot *slot) {
  CHECK(enter(e));
  if (!weights || layer < 0 || layer >= e->shape.layers) {
    return failed(TCU_ARGUMENT, "tcu_bind_layer: no weights, or layer %d of %d", layer, e->shape.layers);
  }
  CHECK(check_layer(*e, *weights));
  if (slot && !weights->router.address) return failed(TCU_ARGUMENT, "tcu_bind_layer: a slot without a router");
  layer_binding binding = {};
  binding.weights = *weights;
  binding.has_slot = slot != nullptr;
  if (slot) CHECK(see_slot(*e, *slot, binding.slot));
  binding.normed_forms = wanted(weights->q) | wanted(weights->k) | wanted(weights->v);
  binding.shared_forms = feed_forward_forms(binding);
  binding.bound = true;
  e->layers[(size_t)layer] = binding;
  return TCU_OK;
}

int tcu_bind_model(tcu_engine *e, const tcu_model *model) {
  CHECK(enter(e));
  if (!model) return failed(TCU_ARGUMENT, "tcu_bind_model: no model");
  const tcu_shape &s = e->shape;
  CHECK(check_fit(*e, model->embedding, "embedding", s.vocabulary, s.hidden, 1));
  CHECK(check_fit(*e, model->head, "head", s.vocabulary, s.hidden, 1));
  CHECK(check_vector(*e, model->output_norm, s.hidden, "output_norm"));
  if (model->head.address && !model->output_norm) return failed(TCU_ARGUMENT, "tcu_bind_model: a head without output_norm");
  e->model = *model;
  e->has_model = true;
  return TCU_OK;
}

int tcu_attach(tcu_engine *e, const tcu_host *host) {
  CHECK(enter(e));
  if (!host || !host->poison || !host->published || !host->completed || !host->finished || !host->status) {
    return failed(TCU_ARGUMENT, "tcu_attach: a null pointer");
  }
  if (e->shape.top > 0 && (!host->top_ids || !host->top_logits)) return failed(TCU_ARGUMENT, "tcu_attach: nowhere to put the best tokens");
  const uint64_t outputs = (uint64_t)e->shape.outputs, top = outputs * (uint64_t)e->shape.top * 4;
  const auto see = [e](const void *address, uint64_t bytes, auto &device) {
    return device_address(*e, address, bytes, "tcu_attach", (void **)&device);
  };
  tcu_host seen = {};
  CHECK(see(host->poison, 4, seen.poison));
  CHECK(see(host->published, 12, seen.published));
  CHECK(see(host->completed, 4, seen.completed));
  CHECK(see(host->finished, 4, seen.finished));
  CHECK(see(host->status, 4, seen.status));
  CHECK(see(host->logits, outputs * (uint64_t)e->shape.vocabulary * 4, seen.logits));
  CHECK(see(host->hidden, outputs * (uint64_t)e->shape.hidden * 4, seen.hidden));
  CHECK(see(host->top_ids, top, seen.top_ids));
  CHECK(see(host->top_logits, top, seen.top_logits));
  CHECK(see(host->marks, (uint64_t)host->mark_count * 8, seen.marks));
  seen.mark_count = host->marks ? host->mark_count : 0;
  if (seen.mark_count > e->host.mark_count) {
    uint64_t address;
    CHECK(tcu_memory(e, (uint64_t)seen.mark_count * 8, &address));
    e->marks = (uint64_t *)address;
  }
  e->host = seen;
  e->attached = true;
  return TCU_OK;
}
