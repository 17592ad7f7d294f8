/* An engine's own memory: its size is a function of the shape alone, so that a plan can count it before any device is opened. */
#include "buffers.h"
#include "attention_parts.h"

namespace {

/* Hands out consecutive pieces of one block of memory. */
struct carver {
  char *base;
  uint64_t used;

  template <typename T>
  void take(T *&pointer, uint64_t count) {
    pointer = base ? (T *)(base + used) : nullptr;
    used += (count * sizeof(T) + 255) / 256 * 256;
  }

  void take(quantized &q, uint64_t rows, uint64_t columns) {
    const uint64_t groups = (columns + GROUP - 1) / GROUP;
    take(q.values, rows * columns);
    take(q.scales, rows * groups);
    take(q.sums, rows * groups);
  }

  void take(activations &a, uint64_t rows, uint64_t columns, int digits) {
    take(a.rows, rows * columns);
    take(a.q8x32, rows * (uint64_t)digits, columns);
    take(a.q8x256, rows * (uint64_t)digits, columns);
    a.digits = digits;
  }
};

uint64_t larger(uint64_t a, uint64_t b) { return a > b ? a : b; }

} // namespace

uint64_t lay_out(const tcu_shape &s, char *base, buffers &b) {
  const uint64_t tokens = (uint64_t)s.ubatch, hidden = (uint64_t)s.hidden, outputs = (uint64_t)s.outputs, vocabulary = (uint64_t)s.vocabulary;
  const uint64_t used = (uint64_t)s.experts_used, experts = (uint64_t)s.experts, head_dim = (uint64_t)s.head_dim;
  const uint64_t heads = (uint64_t)s.heads, kv_heads = (uint64_t)s.kv_heads;
  /* pairs (token, expert) whose experts run on this device */
  const uint64_t pairs = s.device_experts ? tokens * used : 0;
  carver c = {base, 0};

  c.take(b.step.token_ids, tokens);
  c.take(b.step.positions, tokens);
  c.take(b.step.cache_rows, tokens);
  c.take(b.step.outputs, outputs);
  c.take(b.step.runs, (uint64_t)s.sequences * 4);
  c.take(b.step.run_of_token, tokens);
  c.take(b.step.block_tables, (uint64_t)s.sequences * (uint64_t)s.blocks_per_sequence);
  c.take(b.step.angles, tokens * (uint64_t)s.rotary);
  c.take(b.frequencies, (uint64_t)s.rotary / 2);

  c.take(b.x, tokens * hidden);
  c.take(b.normed, larger(tokens, outputs), hidden, s.digits);
  c.take(b.qkv, tokens * (heads + 2 * kv_heads) * head_dim);
  c.take(b.attended, tokens, heads * head_dim, s.digits);
  b.parts_floats = attention_parts_floats(s);
  c.take(b.parts, b.parts_floats);

  c.take(b.router_logits, tokens * experts);
  c.take(b.expert_ids, tokens * used);
  c.take(b.expert_weights, tokens * used);
  /* one feed-forward network at a time: rows are tokens for the dense and the shared ones, pairs for the routed ones, whose results lie there too */
  const uint64_t ffn = (uint64_t)s.ffn, ffn_expert = (uint64_t)s.ffn_expert;
  c.take(b.gated, larger(tokens * 2 * ffn, pairs * larger(2 * ffn_expert, hidden)));
  c.take(b.hidden, 1, larger(tokens * ffn, pairs * ffn_expert), s.digits);
  c.take(b.shared, tokens * hidden);
  c.take(b.routed, s.device_experts ? tokens * hidden : 0);
  c.take(b.pairs.offsets, s.device_experts ? experts + 1 : 0);
  c.take(b.pairs.pair_token, pairs);
  c.take(b.pairs.pair_slot, pairs);
  c.take(b.pairs.pair_weight, pairs);
  /* every expert may leave a tile that is not full */
  c.take(b.pairs.tiles, s.device_experts ? 1 + 2 * (pairs / (uint64_t)(LEAST_TILE_VECTORS / s.digits) + experts) : 0);

  c.take(b.logits, outputs * vocabulary);
  const uint64_t first = (uint64_t)best_slices(s.vocabulary, 0) * (uint64_t)s.top;
  c.take(b.best[0], outputs * first);
  c.take(b.best[1], outputs * (uint64_t)best_slices((int)first, 1) * (uint64_t)s.top);
  c.take(b.counters, COUNTERS);
  return c.used;
}

const char *shape_fault(const tcu_shape &s) {
  if (s.hidden <= 0 || s.hidden % 32 != 0) return "hidden is no multiple of 32";
  if (s.heads <= 0 || s.kv_heads <= 0 || s.heads % s.kv_heads != 0) return "heads is no multiple of kv_heads";
  if (s.head_dim <= 0 || s.head_dim % 32 != 0 || s.head_dim > 256) return "head_dim is no multiple of 32 up to 256";
  if (s.rotary < 0 || s.rotary % 2 != 0 || s.rotary > s.head_dim) return "rotary is odd or larger than head_dim";
  if (s.vocabulary <= 0 || s.layers <= 0) return "vocabulary or layers is not positive";
  if (s.ffn < 0 || s.ffn_expert < 0 || s.experts < 0 || s.experts_used < 0) return "a feed-forward dimension is negative";
  if (s.experts > 4096) return "more than 4096 experts";
  if (s.experts_used > s.experts || s.experts_used > MOST_USED) return "experts_used is larger than experts or 64";
  if (s.experts > 0 && s.experts_used == 0) return "experts_used is 0";
  if (s.experts > 0 && s.gating != GATING_SOFTMAX && s.gating != GATING_SIGMOID) return "gating is neither softmax nor sigmoid";
  if (s.device_experts && (s.experts == 0 || s.ffn_expert == 0)) return "device_experts without experts or ffn_expert";
  if (s.ubatch <= 0 || s.sequences <= 0 || s.outputs <= 0) return "ubatch, sequences or outputs is not positive";
  if (s.kv_blocks <= 0 || s.blocks_per_sequence <= 0) return "kv_blocks or blocks_per_sequence is not positive";
  if (s.top < 0 || s.top > MOST_TOP || s.top > s.vocabulary) return "top is not from 0 to 64 and the vocabulary";
  if (s.digits != 1 && s.digits != 2) return "digits is neither 1 nor 2";
  if (s.deadline_ms <= 0) return "deadline_ms is not positive";
  return nullptr;
}

int tcu_buffer_bytes(const tcu_shape *shape, uint64_t *bytes) {
  if (!shape || !bytes) return TCU_ARGUMENT;
  if (shape_fault(*shape)) return TCU_SHAPE;
  buffers b;
  *bytes = lay_out(*shape, nullptr, b);
  return TCU_OK;
}
