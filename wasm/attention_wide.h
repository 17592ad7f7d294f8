/*
 * The products of attention for the queries of a single token: the same integers as attention_tile.h makes, with fewer instructions. Each pair of a query, and
 * of its weights, stands in memory eight times, a 256-bit vector: V8 takes two instructions for a load that broadcasts, and one for a plain load. The CPU looks
 * ahead by some 500 of them, so this also hides more of the time that memory takes. It pays for a single token only: many tokens take longer to
 * compute than to read, and their queries would fill the nearest cache.
 *
 *   wide  i32[queries / WIDE_ROWS, depth, WIDE_ROWS, WIDE_LANES]
 */
#pragma once
#include "attention.h"
#include "simd.h"

enum { WIDE_ROWS = 4, WIDE_LANES = 8 };

/* wide: those of pairs: i32[count, depth], whole tiles of queries only. */
static void widen(int32_t *wide, const int32_t *pairs, int depth, int count) {
  for (int query = 0; query + WIDE_ROWS <= count; query += WIDE_ROWS) {
    for (int k = 0; k < depth; k++, wide += WIDE_ROWS * WIDE_LANES) {
      UNROLL for (int i = 0; i < WIDE_ROWS; i++) {
        const v128_t pair = wasm_v128_load32_splat(pairs + (query + i) * depth + k);
        store_pair(wide + i * WIDE_LANES, pair, pair);
      }
    }
  }
}

/* sum: i32[4, 16] += the products of `depth` wide pairs with those at b: i16[depth, 16, 2]. */
INLINE void sum_wide(v128_t *sum, const int32_t *wide, const int16_t *b, int depth) {
  const int16_t *end = b + 32 * depth;
  NO_UNROLL for (; b < end; b += 32, wide += WIDE_ROWS * WIDE_LANES) {
    UNROLL for (int i = 0; i < WIDE_ROWS; i++) {
      const v128_t low = load(wide + i * WIDE_LANES), high = load(wide + i * WIDE_LANES + 4);
      UNROLL for (int j = 0; j < 4; j += 2) {
        sum[4 * i + j] = wasm_i32x4_add(wasm_i32x4_dot_i16x8(load(b + 8 * j), low), sum[4 * i + j]);
        sum[4 * i + j + 1] = wasm_i32x4_add(wasm_i32x4_dot_i16x8(load(b + 8 * j + 8), high), sum[4 * i + j + 1]);
      }
    }
  }
}

/* multiply_keys of 4 rows. */
INLINE void multiply_keys_wide(int32_t *products, const int32_t *wide, const int16_t *keys, int pairs, int is_first) {
  v128_t sum[16];
  UNROLL for (int i = 0; i < 16; i++) sum[i] = is_first ? wasm_i32x4_splat(0) : load(products + i / 4 * KV_BLOCK_TOKENS + 4 * (i % 4));
  sum_wide(sum, wide, keys, pairs);
  UNROLL for (int i = 0; i < 16; i++) wasm_v128_store(products + i / 4 * KV_BLOCK_TOKENS + 4 * (i % 4), sum[i]);
}

/* multiply_values of 4 rows and a column of 16. */
INLINE void multiply_values_wide(float *sums, int head_dim, const int32_t *wide, const float *factors, const int16_t *values) {
  v128_t sum[16];
  UNROLL for (int i = 0; i < 16; i++) sum[i] = wasm_i32x4_splat(0);
  sum_wide(sum, wide, values, KV_BLOCK_TOKENS / 2);
  UNROLL for (int i = 0; i < 16; i++) {
    sum[i] = madd(wasm_f32x4_convert_i32x4(sum[i]), wasm_v128_load32_splat(factors + i / 4), load(sums + i / 4 * head_dim + 4 * (i % 4)));
  }
  UNROLL for (int i = 0; i < 16; i++) wasm_v128_store(sums + i / 4 * head_dim + 4 * (i % 4), sum[i]);
}
