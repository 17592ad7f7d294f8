/*
 * Dot products of several tokens for the 256-element formats, for the build that sums four products of bytes in one instruction: the sums of tile256.h,
 * exact as there. That instruction wants four columns that share a scale, so panels are unpacked, and records prepared, in the columns' own order.
 *
 * Unpacked block: 16 groups of 16 columns, in the order of a record's factors: 4 vectors of 32 bytes, byte 4r + j of vector i = row r, column 4i + j, then
 * i32 scale[8]; behind them the pairs that meet the sums of x (minima, or else scales): i16[4 chunks][early, late][8 rows][a, b]; f32 d[8]; f32 dmin[8].
 * Prepared block of a tile of `tokens` records: 16 times i8 values[tokens][16] and i32 factor[tokens]; i16 sums[tokens][16]; f32 scale[tokens].
 */
#pragma once
#include "tile256.h"

enum { GROUPS = 16, GROUP_BYTES = 4 * 32 + 32, PAIRS_AT = GROUPS * GROUP_BYTES, D_AT = PAIRS_AT + 8 * 32, REORDERED256_BYTES = D_AT + 2 * 32 };
enum { GROUP_RECORD_BYTES = 16 + 4, PREPARED256_BYTES = GROUPS * GROUP_RECORD_BYTES + 32 + 4 };

/* out: f32[tokens, 8] of a panel as unpack_prepared256 leaves it and a prepared tile. */
INLINE void prepared_tile256(float *out, const uint8_t *block, const uint8_t *x, int blocks, const struct kind256 kind, const int tokens) {
  v128_t total[TILE_SIZE][2];
  const int is_short = kind.group == 8; /* sums of 16 columns fit in 16 bits: one operation multiplies them instead of two */
  UNROLL for (int t = 0; t < tokens; t++) total[t][0] = total[t][1] = wasm_f32x4_splat(0);
  for (int b = 0; b < blocks; b++, block += REORDERED256_BYTES, x += PREPARED256_BYTES * tokens) {
    v128_t dot[TILE_SIZE][2];
    UNROLL for (int t = 0; t < tokens; t++) dot[t][0] = dot[t][1] = wasm_i32x4_splat(0);
    const uint8_t *quants = block, *values = x, *const end = x + GROUPS * GROUP_RECORD_BYTES * tokens;
    NO_UNROLL for (; values < end; quants += GROUP_BYTES, values += GROUP_RECORD_BYTES * tokens) {
      UNROLL for (int t = 0; t < tokens; t++) {
        const v128_t factor = wasm_v128_load32_splat(values + 16 * tokens + 4 * t);
        v128_t part[2] = {wasm_i32x4_splat(0), wasm_i32x4_splat(0)};
        UNROLL for (int n = 0; n < 4; n++) {
          const v128_t v = wasm_v128_load32_splat(values + 16 * t + 4 * n);
          UNROLL for (int half = 0; half < 2; half++) part[half] = dot_i7_add(v, load(quants + 32 * n + 16 * half), part[half]);
        }
        UNROLL for (int half = 0; half < 2; half++) {
          const v128_t scale = load(quants + 128 + 16 * half);
          const v128_t product = is_short ? wasm_i32x4_dot_i16x8(part[half], wasm_i16x8_mul(scale, factor))
                                          : wasm_i32x4_mul(part[half], wasm_i32x4_dot_i16x8(scale, factor));
          dot[t][half] = wasm_i32x4_add(dot[t][half], product);
        }
      }
    }
    UNROLL for (int t = 0; t < tokens; t++) {
      const uint8_t *x_sums = x + GROUPS * GROUP_RECORD_BYTES * tokens + 32 * t;
      const v128_t scale = wasm_v128_load32_splat(x + (GROUPS * GROUP_RECORD_BYTES + 32) * tokens + 4 * t);
      UNROLL for (int half = 0; half < 2; half++) {
        const uint8_t *at = block + 16 * half;
        v128_t sum = dot[t][half], sums = wasm_i32x4_splat(0);
        UNROLL for (int chunk = 0; chunk < 4; chunk++) {
          const v128_t early = wasm_v128_load32_splat(x_sums + 8 * chunk), late = wasm_v128_load32_splat(x_sums + 8 * chunk + 4);
          const v128_t pairs = load(at + PAIRS_AT + 64 * chunk);
          sums = wasm_i32x4_add(sums, wasm_i32x4_dot_i16x8(pairs, kind.by_16 ? early : wasm_i16x8_add(early, late)));
          if (kind.by_16) sums = wasm_i32x4_add(sums, wasm_i32x4_dot_i16x8(load(at + PAIRS_AT + 64 * chunk + 32), late));
        }
        if (kind.offset) sum = wasm_i32x4_sub(sum, wasm_i32x4_mul(sums, wasm_i32x4_splat(kind.offset)));
        total[t][half] = madd(wasm_f32x4_convert_i32x4(sum), wasm_f32x4_mul(load(at + D_AT), scale), total[t][half]);
        if (kind.minima) total[t][half] = nmadd(wasm_f32x4_convert_i32x4(sums), wasm_f32x4_mul(load(at + D_AT + 32), scale), total[t][half]);
      }
    }
  }
  store_tile(out, total, tokens);
}

/* a and b of two neighbouring steps, four columns of each. */
INLINE void split_steps(uint8_t *to_a, uint8_t *to_b, const v128_t *first, const v128_t *second, struct constants constants) {
  v128_t a[2], b[2];
  UNROLL for (int half = 0; half < 2; half++) {
    a[half] = wasm_v128_or(wasm_v128_and(first[half], constants.low_half), wasm_i32x4_shl(second[half], 16));
    b[half] = wasm_v128_or(wasm_u32x4_shr(first[half], 16), wasm_v128_andnot(second[half], constants.low_half));
  }
  store_pair(to_a, a[0], a[1]);
  store_pair(to_b, b[0], b[1]);
}

/* Unpacks `blocks` blocks. */
INLINE void unpack_prepared256(uint8_t *to, const uint8_t *block, const struct reader256 read, const struct kind256 kind, int blocks) {
  const struct constants constants = read_constants();
  for (int b = 0; b < blocks; b++, block += kind.panel_bytes, to += REORDERED256_BYTES) {
    for (int chunk = 0; chunk < 4; chunk++) {
      uint8_t *const groups = to + 4 * GROUP_BYTES * chunk, *const pairs = to + PAIRS_AT + 64 * chunk;
      UNROLL for (int n = 0; n < 8; n++) {
        const int at = (n & 1) * 4 + n / 2, late = at >> 2; /* low and high nibbles of the same bytes together */
        v128_t first[2], second[2];
        UNROLL for (int half = 0; half < 2; half++) first[half] = read.weights(block, chunk, 2 * at, half, constants);
        UNROLL for (int half = 0; half < 2; half++) second[half] = read.weights(block, chunk, 2 * at + 1, half, constants);
        uint8_t *const group = groups + 2 * GROUP_BYTES * late + 32 * (at & 3);
        split_steps(group, group + GROUP_BYTES, first, second, constants);
      }
      UNROLL for (int late = 0; late < 2; late++) {
        v128_t a[2], b[2], pair[2];
        UNROLL for (int half = 0; half < 2; half++) {
          const v128_t scales = read.scales(block, chunk, kind.by_16 & late, half, constants);
          a[half] = wasm_v128_and(scales, constants.low_half);
          b[half] = wasm_u32x4_shr(scales, 16);
          pair[half] = kind.minima ? read.minima(block, chunk, kind.by_16 & late, half, constants) : scales;
        }
        store_pair(groups + 2 * GROUP_BYTES * late + 128, a[0], a[1]);
        store_pair(groups + 2 * GROUP_BYTES * late + GROUP_BYTES + 128, b[0], b[1]);
        store_pair(pairs + 32 * late, pair[0], pair[1]);
      }
    }
    store_pair(to + D_AT, load_f16x4(block, constants), load_f16x4(block + 8, constants));
    if (kind.minima) store_pair(to + D_AT + 32, load_f16x4(block + 16, constants), load_f16x4(block + 24, constants));
  }
}

/* Prepares the records of `tokens` tokens, tile after tile. */
static void prepare_tiles256(uint8_t *to, const uint8_t *const *records, int columns, int tokens) {
  for (int tile; tokens > 0; tokens -= tile, records += tile) {
    tile = tile_of(tokens, TILE_SIZE);
    for (int b = 0; b < columns / 256; b++, to += PREPARED256_BYTES * tile) {
      for (int t = 0; t < tile; t++) {
        const struct activation_q8x256 *from = (const struct activation_q8x256 *)records[t] + b;
        for (int pair = 0; pair < GROUPS / 2; pair++) {
          uint8_t *const a = to + 2 * pair * GROUP_RECORD_BYTES * tile, *const b16 = a + GROUP_RECORD_BYTES * tile;
          const v128_t low = load(from->values + 32 * pair), high = load(from->values + 32 * pair + 16);
          wasm_v128_store(a + 16 * t, wasm_i16x8_shuffle(low, high, 0, 2, 4, 6, 8, 10, 12, 14));
          wasm_v128_store(b16 + 16 * t, wasm_i16x8_shuffle(low, high, 1, 3, 5, 7, 9, 11, 13, 15));
          ((int32_t *)(a + 16 * tile))[t] = from->factors[2 * pair];
          ((int32_t *)(b16 + 16 * tile))[t] = from->factors[2 * pair + 1];
        }
        uint8_t *const behind = to + GROUPS * GROUP_RECORD_BYTES * tile;
        __builtin_memcpy(behind + 32 * t, from->sums, sizeof(from->sums));
        __builtin_memcpy(behind + 32 * tile + 4 * t, &from->scale, sizeof(from->scale));
      }
    }
  }
}
