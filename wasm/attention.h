/*
 * How keys and values lie in the cache, which rope_store and attend alone know: 16-bit integers, and one f32 scale per vector of a token and a KV head.
 * A block's tokens stand in this order, so that neighbours t, t + 1 are in the same lane of two vectors of 8: 0 2 .. 14, 1 3 .. 15, 16 18 .. 30, 17 19 .. 31.
 *
 *   keys    i16[2 strips of 16 tokens][head_dim / 2][16 tokens][2 neighbours of head_dim]
 *   values  i16[columns of 16 (at the end of 4) of head_dim][16 pairs of tokens][16 or 4 of head_dim][2 tokens]
 *   scales  f32[32 tokens] of each, before the integers of all blocks
 *
 * KV_ROW_BLOCKS blocks of one KV head stand in a row, then those of the next head: one head is read at a time, and the CPU's prefetchers go on from a page to
 * the next one in memory.
 *
 * i32x4.dot_i16x8 makes of 8 tokens' two neighbours the products with two neighbours of a query, and of a pair of tokens' 8 elements the products with
 * two weights; no horizontal sum is ever needed. Every sum fits in an i32, so it is exact, and its order does not matter:
 *   scores  |sum k q| <= |k| |q| (Cauchy and Schwarz), for every part of the sum as well: the Euclidean norms of key and query are at most NORM_LIMIT
 *   sums    |sum w v| <= sum w * VALUE_LIMIT, and the sum of a block's weights is at most WEIGHTS_LIMIT
 */
#pragma once
#include <stddef.h>
#include "kernels.h"
#include "simd.h"

enum {
  KV_ROW_BLOCKS = KV_ROW_TOKENS / KV_BLOCK_TOKENS,
  STRIP_TOKENS = 16,
  COLUMN_WIDTH = 16,
  ELEMENT_LIMIT = 32767, /* of keys and queries */
  NORM_LIMIT = 46320,    /* (46320 + sqrt(MAX_HEAD_DIM) / 2)^2 < 2^31 */
  VALUE_LIMIT = 16383,
  WEIGHT_LIMIT = 32767,
  WEIGHTS_LIMIT = 131000, /* of a block's sum of weights, less what rounding adds: (131000 + 16) * VALUE_LIMIT < 2^31 */
  MAX_HEAD_DIM = 1024, /* real models have at most 576 */
};

/* Where a token of a block stands. */
static inline int token_place(int token) { return (token & 16) + (token & 1) * 8 + (token & 15) / 2; }

/* Bytes of one KV head's integers in one block. */
static inline size_t head_block_bytes(int head_dim) { return (size_t)KV_BLOCK_TOKENS * (size_t)head_dim * 2; }

/* Which of the cache's head blocks is that of `block` and `kv_head`. */
static inline size_t head_block_index(int block, int kv_head, int kv_heads) {
  return ((size_t)(block / KV_ROW_BLOCKS) * (size_t)kv_heads + (size_t)kv_head) * KV_ROW_BLOCKS + (size_t)(block % KV_ROW_BLOCKS);
}

/* The scales of the cache's head block `index`: they lie before its integers, the first block's last. */
static inline float *head_block_scales(const uint8_t *cache, size_t index) { return (float *)cache - KV_BLOCK_TOKENS * (index + 1); }

/* element = integer * scale */
struct grid {
  float inverse, scale;
};

/* A vector beyond LARGEST, NaN included, gets the scale NaN; one below SMALLEST is zero. f16 would do so at 65,520 and 2^-25. */
static const float LARGEST = 0x1p100f, SMALLEST = 0x1p-40f;

INLINE v128_t magnitude(v128_t x) { return wasm_v128_and(x, wasm_i32x4_splat(0x7fffffff)); }

/* The largest of four lanes that are >= 0 or NaN, which counts as the largest of all. */
INLINE float max_magnitude(v128_t v) {
  const v128_t pair = wasm_u32x4_max(v, wasm_i32x4_shuffle(v, v, 2, 3, 0, 1));
  return wasm_f32x4_extract_lane(wasm_u32x4_max(pair, wasm_i32x4_shuffle(pair, pair, 1, 0, 3, 2)), 0);
}

/* The finest grid on which no element of x: f32[count] is above `limit`, and (unless 0) its norm not above `norm_limit`. */
static inline struct grid find_grid(const float *x, int count, float limit, float norm_limit) {
  v128_t most = wasm_i32x4_splat(0);
  for (int i = 0; i < count; i += 4) most = wasm_u32x4_max(most, magnitude(load(x + i)));
  const float largest = max_magnitude(most);
  if (!(largest <= LARGEST)) return (struct grid){0, __builtin_nanf("")};
  if (largest < SMALLEST) return (struct grid){0, 0};
  float steps = limit;
  if (norm_limit > 0) {
    const v128_t factor = wasm_f32x4_splat(1 / largest);
    v128_t squares = wasm_f32x4_splat(0);
    for (int i = 0; i < count; i += 4) {
      const v128_t part = wasm_f32x4_mul(load(x + i), factor);
      squares = madd(part, part, squares);
    }
    const float norm = norm_limit / __builtin_sqrtf(sum_lanes(squares));
    steps = norm < limit ? norm : limit;
  }
  return (struct grid){steps / largest, largest / steps};
}

/* Four elements as integers, each in the low 16 bits of its lane: adding 1.5 * 2^23 rounds to the nearest. */
INLINE v128_t to_grid(v128_t x, v128_t inverse) { return wasm_f32x4_add(wasm_f32x4_mul(x, inverse), wasm_f32x4_splat(12582912)); }
