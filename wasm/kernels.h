/*
 * The kernels' whole boundary: numbers and byte offsets only, a status returned, no allocation, no strings, no callbacks, no global state
 * that is written after start-up (several threads run this code over one shared memory at the same time, each with its own stack).
 * `src/abi/kernels.ts` is the TypeScript twin of this header; a test compares the two.
 *
 * Letters, always in this order: tokens, heads, rows (outputs), columns (inputs). `f32[tokens, columns]` is row-major.
 *
 *   panel        8 consecutive rows of a weight matrix, interleaved (formats.h); a matrix of R rows is ceil(R / 8) panels back to back
 *   record       one activation row as `quantize` writes it (activations.h); `record_bytes(activation, columns)` long
 *   cache        one layer's keys or values of all KV blocks, of which there is room for whole rows: i16[rows, kv_heads, KV_ROW_TOKENS, head_dim], and before
 *                that address their scales: an f32 per vector, the last block first (attention.h; rope_store and attend alone know the order)
 *   scratch      the calling worker's own bytes, at least SCRATCH_BYTES(columns, heads, head_dim), 64-byte aligned
 *
 * Results never depend on how rows, tokens or heads are shared out among callers, nor on how many tokens are in a call: every output
 * element is computed by the same operations in the same order.
 */
#pragma once
#include <stdint.h>

enum status {
  STATUS_OK = 0,
  STATUS_FORMAT = 1,     /* no such format or activation */
  STATUS_SHAPE = 2,      /* a dimension the kernel cannot do (columns no multiple of the block, rows not on a panel, ...) */
  STATUS_NOT_FINITE = 3, /* repack: a scale or a weight is NaN or infinite */
};

enum { KV_BLOCK_TOKENS = 32, KV_ROW_TOKENS = 1024, ATTENTION_CHUNK_TOKENS = 256, ATTENTION_TILE_QUERIES = 128, PANEL_ROWS = 8 };

/* flags of matmul, and of gated, which knows the last alone: records are q16, of a format whose activations are quantised */
enum { MATMUL_STORE = 0, MATMUL_ADD = 1, MATMUL_Q16 = 2 };

/* route: gating functions as GGUF numbers them */
enum { GATING_SOFTMAX = 1, GATING_SIGMOID = 2 };

/* Repacks `rows` file rows of `columns` elements into ceil(rows / 8) panels; rows missing from the last panel become zero weights.
 * Any NaN or infinite weight or scale gives STATUS_NOT_FINITE. */
int repack(int format, uint8_t *panels, const uint8_t *file_rows, int columns, int rows);

/* y: f32[count, columns] = the rows `ids` of a repacked matrix (embedding; ids are checked by the caller). */
int dequantize_rows(int format, float *y, const uint8_t *panels, const int32_t *ids, int columns, int count, uint8_t *scratch);

/* y: f32[tokens, columns] = x / rms(x) * weight. x and y may be the same. */
int rms_norm(float *y, const float *x, const float *weight, int columns, int tokens, float epsilon);

/* records[tokens] from x: f32[tokens, columns]. activation: 0 f32, 1 q8x32, 2 q8x256, 3 q16x32, 4 q16x256 (formats.ts ACTIVATION). */
int quantize(int activation, uint8_t *records, const float *x, int columns, int tokens);

/* Bytes of one record; the TypeScript twin has the same formula. */
int record_bytes(int activation, int columns);

/*
 * y[y_index[t]][r] (=, or += with MATMUL_ADD) scale[t] * (bias[r] + sum_c W[r][c] * x[x_index[t]][c])   for t < tokens, row_begin <= r < row_end
 *
 * y: f32[*, y_stride]; panels: the whole matrix; x: records of the format's activation. row_begin is a multiple of 8, row_end too or the
 * matrix's last row; padding rows are never stored. x_index, y_index: i32[tokens], or 0 for t itself. scale: f32[tokens] or 0 for 1.
 * bias: f32[rows] or 0.
 */
int matmul(int format, int flags, float *y, int y_stride, const uint8_t *panels, const uint8_t *x, const int32_t *x_index, const int32_t *y_index,
           const float *scale, const float *bias, int columns, int row_begin, int row_end, int tokens, uint8_t *scratch);

/* h[t][r] = silu(gate row r . x) * (up row r . x): f32[tokens, h_stride], x taken through x_index as in matmul. */
int gated(int gate_format, int up_format, int flags, float *h, int h_stride, const uint8_t *gate, const uint8_t *up, const uint8_t *x, const int32_t *x_index,
          int columns, int row_begin, int row_end, int tokens, uint8_t *scratch);

/*
 * For tokens token_begin <= t < token_end: per-head RMS norm of q and k (q_norm, k_norm: f32[head_dim], or 0), then NEOX rotation of the
 * first `rotary` elements (pairs i, i + rotary/2) by angles[t]: f32[tokens, rotary] = cos[rotary/2] then sin[rotary/2]; q in place, k and v
 * rounded to 16-bit integers, on a grid per head vector, into the caches at cache_rows[t] = block * KV_BLOCK_TOKENS + offset.
 * q: f32[tokens, q_stride], k, v: f32[tokens, kv_stride] (strides in floats, so that all three may lie in one buffer).
 */
int rope_store(float *q, int q_stride, const float *k, const float *v, int kv_stride, uint8_t *key_cache, uint8_t *value_cache, const int32_t *cache_rows,
               const float *angles, const float *q_norm, const float *k_norm, int heads, int kv_heads, int head_dim, int rotary, float epsilon,
               int token_begin, int token_end);

/*
 * out: f32[tokens, out_stride]: causal attention of `token_count` consecutive tokens of ONE sequence, for the heads that share kv_head.
 * q: f32[tokens, q_stride]; positions: i32[tokens], ascending; token t sees keys 0..positions[t], found through block_table: i32[...].
 * scale is applied to q . k. Products are exact, of 16-bit integers; the rest is f32. The softmax is online over KV blocks in order, begun anew at every
 * ATTENTION_CHUNK_TOKENS keys. A head vector with an infinite element, a NaN or one above 2^100 makes all NaN that it is multiplied with.
 */
int attend(float *out, int out_stride, const float *q, int q_stride, const uint8_t *key_cache, const uint8_t *value_cache, const int32_t *block_table,
           const int32_t *positions, int token_begin, int token_count, int kv_head, int heads, int kv_heads, int head_dim, float scale, uint8_t *scratch);

/*
 * The same for ONE token at `position` in two steps, so that several workers can share a long context; bit for bit what attend gives.
 * attend_part works out chunks chunk_begin <= c < chunk_end, keys c * ATTENTION_CHUNK_TOKENS and on, for the heads that share kv_head;
 * attend_merge makes out: f32[heads, head_dim] of all of the token's chunks, for head_begin <= h < head_end.
 * q: f32[heads, head_dim]; parts: f32[chunks, heads, head_dim + 2], the token's own.
 */
int attend_part(float *parts, const float *q, const uint8_t *key_cache, const uint8_t *value_cache, const int32_t *block_table,
                int position, int chunk_begin, int chunk_end, int kv_head, int heads, int kv_heads, int head_dim, float scale, uint8_t *scratch);
int attend_merge(float *out, const float *parts, int chunks, int heads, int head_dim, int head_begin, int head_end);

/*
 * Top-k routing (facts: architectures, section 2). logits: f32[tokens, experts]; bias: f32[experts] added for the choice only, or 0;
 * normalize: weights are divided by max(sum, 6.1035e-5); scale: factor on the weights (0 means 1). ids: i32[tokens, used], ascending by id in each
 * token; weights: f32[tokens, used] in the same order. Ties go to the lower id.
 */
int route(int32_t *ids, float *weights, const float *logits, const float *bias, int gating, int normalize, float scale, int experts, int used,
          int token_begin, int token_end);

/*
 * Groups the pairs (token, expert) by expert. offsets: i32[experts + 1]; for p in offsets[e] .. offsets[e + 1]: pair_token[p] is the token and
 * pair_weight[p] its weight. Tokens ascend within an expert.
 */
int group(int32_t *offsets, int32_t *pair_token, float *pair_weight, const int32_t *ids, const float *weights, int experts, int used, int tokens);

/*
 * Goes on with the search for the best logit of each row: best[r] is that of token ids[r], where a negative id is none yet, and is compared with tokens
 * begin <= i < end of logits: f32[rows, stride]. What is not finite (NaN, infinities) is better than all else; of equals the one that came first stays.
 */
int keep_best(int32_t *ids, float *best, const float *logits, int stride, int begin, int end, int rows);

/* x[i] += a[i] + b[i] for `count` floats; b may be 0. */
int combine(float *x, const float *a, const float *b, int count);
