/*
 * Dot products of several tokens for the 32-element formats with an offset: the sums of tile32.h, exact as there, in fewer operations. Such a product
 * waits for the processor's two multipliers, so what is the same for all panels is worked out once per chunk of tokens.
 *
 * Prepared block of a tile of `tokens` records, walked with one pointer: i8 values[tokens][32]; i32 start[tokens]; f32 scale[tokens].
 * start is MAGIC_BITS - offset * sum(x). Added up from there in i32, a sum's bits are those of the f32 1.5 * 2^23 + sum, and a subtraction, for which
 * there is a third unit, takes the place of a conversion.
 */
#pragma once
#include "tile32.h"

enum { PREPARED32_BYTES = 32 + 4 + 4 };

/* out: f32[tokens, 8] of an unpacked panel without m and a prepared tile; `chain` as in tile32. */
INLINE void prepared_tile32(float *out, const uint8_t *block, const uint8_t *x, int blocks, const int chain, const int tokens) {
  const struct constants constants = read_constants();
  v128_t total[TILE_SIZE][2];
  UNROLL for (int t = 0; t < tokens; t++) total[t][0] = total[t][1] = wasm_f32x4_splat(0);
  for (int b = 0; b < blocks; b++, block += UNPACKED32_MINIMA, x += PREPARED32_BYTES * tokens) {
    v128_t dot[TILE_SIZE][2], part[TILE_SIZE][2], d[2];
    UNROLL for (int n = 0; n < 8; n++) {
      const int step = VISIT(n, 8), is_last = (n + 1) % chain == 0;
      v128_t w[2];
      UNROLL for (int half = 0; half < 2; half++) w[half] = unpacked_weights(block, step, half, constants);
      UNROLL for (int t = 0; t < tokens; t++) {
        const v128_t start = wasm_v128_load32_splat(x + 32 * tokens + 4 * t);
        if (SUMS_IN_I32 && n == 0) part[t][0] = part[t][1] = start;
        add_products(part[t], x + 32 * t, step, w, n % chain == 0 && (n > 0 || !SUMS_IN_I32));
        if (!is_last) continue;
        UNROLL for (int half = 0; half < 2; half++) {
          const v128_t sum = SUMS_IN_I32 ? part[t][half] : wasm_i32x4_extadd_pairwise_i16x8(part[t][half]);
          const v128_t before = n >= chain ? dot[t][half] : start;
          dot[t][half] = SUMS_IN_I32 && n < chain ? sum : wasm_i32x4_add(before, sum);
        }
      }
    }
    UNROLL for (int half = 0; half < 2; half++) d[half] = unpacked_scales(block, half, constants);
    UNROLL for (int t = 0; t < tokens; t++) {
      const v128_t scale = wasm_v128_load32_splat(x + 36 * tokens + 4 * t);
      UNROLL for (int half = 0; half < 2; half++) {
        total[t][half] = madd(wasm_f32x4_sub(dot[t][half], constants.magic), wasm_f32x4_mul(d[half], scale), total[t][half]);
      }
    }
  }
  store_tile(out, total, tokens);
}

/* Tokens of a tile at most, a literal: the build that sums in i32 takes fewer tokens and two panels. */
#ifdef DOT_BUILD
#define PREPARED_TOKENS 4
#else
#define PREPARED_TOKENS 8
#endif

/*
 * The same for two unpacked panels whose blocks take turns, sums in i32, and totals that go on from what is in out. A vector of weights then serves four tokens, and a broadcast of
 * activations, which is two instructions in V8, two panels: together they take half as many instructions as eight tokens by one panel. The loop over
 * steps must stay one: V8 works a loop's body out sum by sum, and the weights of a whole block would not fit in its registers.
 */
INLINE void prepared_pair32(float *out, const uint8_t *block, const uint8_t *x, int blocks, const int tokens) {
  enum { STEPS = 2 };
  const struct constants constants = read_constants();
  v128_t total[PAIR][PREPARED_TOKENS][2];
  float *to[PAIR] = {out, out + PAIR_STRIDE};
  /* With an address of its own: V8 pairs no loads whose address is worked out for each. */
  __asm__("" : "+r"(to[1]));
  UNROLL for (int p = 0; p < PAIR; p++) {
    UNROLL for (int t = 0; t < tokens; t++) UNROLL for (int half = 0; half < 2; half++) total[p][t][half] = load(to[p] + 8 * t + 4 * half);
  }
  for (int b = 0; b < blocks; b++, block += PAIR * UNPACKED32_MINIMA, x += PREPARED32_BYTES * tokens) {
    v128_t dot[PREPARED_TOKENS][PAIR][2];
    UNROLL for (int t = 0; t < tokens; t++) {
      const v128_t start = wasm_v128_load32_splat(x + 32 * tokens + 4 * t);
      UNROLL for (int p = 0; p < PAIR; p++) dot[t][p][0] = dot[t][p][1] = start;
    }
    const uint8_t *quants = block + 32, *values = x, *const end = x + 32;
    NO_UNROLL for (; values < end; quants += 32 * STEPS, values += 4 * STEPS) {
      UNROLL for (int t = 0; t < tokens; t++) {
        UNROLL for (int p = 0; p < PAIR; p++) {
          v128_t sum[2];
          UNROLL for (int half = 0; half < 2; half++) sum[half] = dot[t][p][half];
          UNROLL for (int s = 0; s < STEPS; s++) {
            v128_t w[2];
            UNROLL for (int half = 0; half < 2; half++) w[half] = load(quants + UNPACKED32_MINIMA * p + 32 * s + 16 * half);
            add_products(sum, values + 32 * t, s, w, 0);
          }
          UNROLL for (int half = 0; half < 2; half++) dot[t][p][half] = sum[half];
        }
      }
    }
    v128_t d[PAIR][2];
    UNROLL for (int p = 0; p < PAIR; p++) {
      UNROLL for (int half = 0; half < 2; half++) d[p][half] = unpacked_scales(block + UNPACKED32_MINIMA * p, half, constants);
    }
    UNROLL for (int t = 0; t < tokens; t++) {
      const v128_t scale = wasm_v128_load32_splat(x + 36 * tokens + 4 * t);
      UNROLL for (int p = 0; p < PAIR; p++) {
        UNROLL for (int half = 0; half < 2; half++) {
          total[p][t][half] = madd(wasm_f32x4_sub(dot[t][p][half], constants.magic), wasm_f32x4_mul(d[p][half], scale), total[p][t][half]);
        }
      }
    }
  }
  UNROLL for (int p = 0; p < PAIR; p++) store_tile(to[p], total[p], tokens);
}

/* Unpacks two panels, whose blocks then take turns. Both are read at the same time: more reads are under way (tiles.h). */
INLINE void unpack_pair32(uint8_t *unpacked, const uint8_t *const *panels, const struct kind32 kind, weights32 *weights, scales32 *scales, int blocks) {
  const struct constants constants = read_constants();
  const uint8_t *first = panels[0], *second = panels[1];
  for (int b = 0; b < blocks; b++, first += kind.block_bytes, second += kind.block_bytes, unpacked += PAIR * UNPACKED32_MINIMA) {
    unpack_block32(unpacked, first, kind, weights, scales, constants);
    unpack_block32(unpacked + UNPACKED32_MINIMA, second, kind, weights, scales, constants);
  }
}

/*
 * Few tokens take pairs of panels a slice of this many blocks at a time, so that what is unpacked, and the records that meet it, are still in the
 * first-level cache when the last tile comes. For more tokens that is worth less than the calls cost.
 */
enum { SLICED_TOKENS = 16, SLICE_BLOCKS = 8 };

INLINE int slice_of(int blocks, int tokens) { return tokens <= SLICED_TOKENS && blocks > SLICE_BLOCKS ? SLICE_BLOCKS : blocks; }

/* f32[PAIR, CHUNK_TOKENS, 8]: the results of a pair of panels, from which totals go on. */
INLINE void clear_pair(float *out, int tokens) {
  for (int p = 0; p < PAIR; p++) __builtin_memset(out + p * PAIR_STRIDE, 0, (size_t)tokens * 8 * sizeof(float));
}

/* to[t] for every t at which a tile begins: its records from block `first` on. */
INLINE void skip_blocks(const uint8_t **to, const uint8_t *const *x, int first, int tokens) {
  for (int t = 0, tile; t < tokens; t += tile) {
    tile = tile_of(tokens - t, PREPARED_TOKENS);
    to[t] = x[t] + PREPARED32_BYTES * tile * first;
  }
}

/* Prepares the records of `tokens` tokens, tile after tile. */
static void prepare_tiles32(uint8_t *to, const uint8_t *const *records, int offset, int blocks, int tokens) {
  for (int tile; tokens > 0; tokens -= tile, records += tile) {
    tile = tile_of(tokens, PREPARED_TOKENS);
    for (int b = 0; b < blocks; b++, to += PREPARED32_BYTES * tile) {
      int32_t *start = (int32_t *)(to + 32 * tile);
      float *scale = (float *)(to + 36 * tile);
      for (int t = 0; t < tile; t++) {
        const struct activation_q8x32 *from = (const struct activation_q8x32 *)records[t] + b;
        store_pair(to + 32 * t, load(from->values), load(from->values + 16));
        start[t] = MAGIC_BITS - offset * from->sum;
        scale[t] = from->scale;
      }
    }
  }
}
