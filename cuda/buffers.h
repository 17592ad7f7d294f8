/*
 * An engine's own memory: what lies in it and how large it is. Plain C++, so that the GPU library and the stand-in for it (host/) share it.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include "tandem_cuda.h"

enum { KV_BLOCK_TOKENS = 32, UPLOAD_LANES = 4, DECODE_TOKENS = 8, GROUP = 16 };
enum { GATING_SOFTMAX = 1, GATING_SIGMOID = 2 };
enum { MOST_USED = 64, MOST_TOP = 64 }; /* experts of a token; best tokens told of an output row */

/*
 * Rows quantised to 8 bits, the same numbers as the records of wasm/activations.h in an order that suits the device:
 * x[t][c] = scales[t][c / GROUP] * values[t][c]. For q8x32 two neighbouring groups have the same scale; for q8x256 the scale has the factor in it.
 */
struct quantized {
  int8_t *values; /* i8[tokens, columns] */
  float *scales;  /* f32[tokens, columns / GROUP] */
  float *sums;    /* f32[tokens, columns / GROUP]: scale times the sum of the group's values, for formats with a minimum */
};

/*
 * Rows in every form that some weight wants of them. With two digits a token has two quantised rows, side by side: x rounded, then what that left of
 * it, rounded; a product is the sum of the products with both.
 */
struct activations {
  float *rows; /* f32[tokens, columns] */
  quantized q8x32, q8x256;
  int digits;  /* 1 or 2 */
};

/* A step as the device sees it; copied there by tcu_begin_step. */
struct step_buffers {
  int32_t *token_ids, *positions, *cache_rows, *outputs; /* i32[tokens], i32[outputs] */
  int32_t *runs;                                         /* i32[sequences, 4]: first token, tokens, row of block_tables, unused */
  int32_t *run_of_token;                                 /* i32[tokens] */
  int32_t *block_tables;                                 /* i32[sequences, blocks_per_sequence]: run r's is row r */
  float *angles;                                         /* f32[tokens, rotary]: cos, then sin */
};

/* Fewest vectors of a tile of the grouped products, `digits` for each token: sizes `groups.tiles`. */
enum { LEAST_TILE_VECTORS = 64 };

/* Pairs (token, expert) grouped by expert, tokens ascending in each, for prefill on the device. Slot t * experts_used + j is token t's j-th pair. */
struct groups {
  int32_t *offsets;    /* i32[experts + 1] */
  int32_t *pair_token; /* i32[tokens * experts_used] */
  int32_t *pair_slot;  /* i32[tokens * experts_used] */
  float *pair_weight;  /* f32[tokens * experts_used] */
  int32_t *tiles;      /* i32[1 + 2 * (tokens * experts_used / (LEAST_TILE_VECTORS / digits) + experts)]: count, then (expert, first pair) of every tile */
};

struct buffers {
  step_buffers step;
  double *frequencies; /* f64[rotary / 2] */
  float *x;            /* f32[ubatch, hidden]: the residual stream */
  activations normed;  /* [ubatch, hidden] */
  float *qkv;          /* f32[ubatch, (heads + 2 kv_heads) * head_dim]: q, k, v side by side */
  activations attended; /* [ubatch, heads * head_dim] */
  float *parts;        /* partial results of attention in decode */
  size_t parts_floats;
  float *router_logits; /* f32[ubatch, experts] */
  int32_t *expert_ids;  /* i32[ubatch, experts_used] */
  float *expert_weights;
  float *gated;        /* what gate and up give, before they are joined: f32[tokens, 2 * ffn] or f32[pairs, 2 * ffn_expert];
                        * then what down gives of each pair: f32[pairs, hidden] (experts.cu) */
  activations hidden;  /* [rows, ffn or ffn_expert]: silu(gate) * up */
  float *shared, *routed; /* f32[ubatch, hidden] */
  groups pairs;
  float *logits;       /* f32[outputs, vocabulary] */
  uint64_t *best[2];   /* keys of the best logits, while they are being found: u64[outputs, slices * top] (head.cu) */
  uint32_t *counters;  /* see enum counter */
};

/* Words of `counters`, on the device, all zero at the start. */
enum counter { COUNTER_PUBLISHED = 0, COUNTER_FINISHED = 1, COUNTER_FAILED = 2, COUNTER_TICKET = 3, COUNTERS = 64 };

/* Keys that one block finds the best of (head.cu), in the first pass and in later ones; how many such slices `count` keys make in a pass. */
enum { FIRST_THREADS = 512, FIRST_SLICE = 2048, LATER_THREADS = 1024, LATER_SLICE = 8192 };
inline int best_slices(int count, int round) {
  const int slice = round == 0 ? FIRST_SLICE : LATER_SLICE;
  return (count + slice - 1) / slice;
}

/* buffers.cu: lays the buffers out from `base` on, each on 256 bytes, and returns how many bytes they take. `base` may be null. */
uint64_t lay_out(const tcu_shape &shape, char *base, buffers &b);
/* buffers.cu: what is wrong with a shape, or null. */
const char *shape_fault(const tcu_shape &shape);
