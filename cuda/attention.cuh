/* What the files of attention share on the host's side. Device code is in attention_tile.cuh. */
#pragma once
#include "attention_parts.h"
#include "engine.cuh"

enum {
  DECODE_SPLITS = 256,  /* most parts of one context */
  MAX_HEAD_DIM = 256,
};

/* Where a layer's attention finds everything: a kernel parameter. */
struct attention_arguments {
  const float *qkv;                /* f32[tokens, (heads + 2 kv_heads) * head_dim], q already rotated */
  const __half *keys, *values;     /* f16[blocks, kv_heads, 32, head_dim] */
  const int32_t *runs;             /* i32[runs, 4]: first token, tokens, row of block_tables */
  const int32_t *positions;        /* i32[tokens] */
  const int32_t *block_tables;     /* i32[*, blocks_per_sequence] */
  activations out;                 /* [tokens, heads * head_dim]: rows, and by decode also `forms` of them */
  int forms;
  float *parts;                    /* attention_decode.cu */
  int heads, kv_heads, group, head_dim, blocks_per_sequence, run_count;
  float scale; /* of q: scores come out in units of ln 2 */
};

/* attention.cu: TCU_OK when attention can be computed with these heads. */
int check_attention(const tcu_shape &shape);

/* rope.cu: norm and rotation of q (in place) and k, then k and v into the layer's caches. */
int rope_store(tcu_engine &e, const layer_binding &layer);
/* attention_decode.cu: every run has one token. */
int attend_decode(tcu_engine &e, const attention_arguments &arguments);
/* attention_prefill.cu: runs of any number of tokens. */
int attend_prefill(tcu_engine &e, const attention_arguments &arguments);
