/*
 * Dot products of 256-element formats whose stored integers fit 7 bits (Q4_K, Q5_K, Q6_K), with records of struct activation_q8x256.
 *
 * A block is four chunks of 64 columns; a chunk is two groups of 32, a and b, and 16 steps. A step's vector of 32 bytes holds for row r the columns
 * a[2 step], a[2 step + 1], b[2 step], b[2 step + 1] at bytes 4r .. 4r + 3: an i16 pair of products is (a, b), and so are the pairs of scales.
 * Nibbles: vector i of 8 per chunk has step i in its low and step i + 8 in its high nibbles.
 *
 * Per block and output: the exact integer sum of scale * factor * quant * x, then one multiply-add; formats with minima then subtract
 * dmin * (sum of minimum * factor * sum(x)); those with an offset of 32 subtract scale * 32 * factor * sum(x) among the integers. The largest
 * sum is that of Q6_K: 256 columns * 63 * 127 * scale 128 * factor 8 = 2,097,414,144 < 2^31.
 */
#pragma once
#include <stddef.h>
#include "activations.h"
#include "half.h"
#include "tiles.h"

enum { CHUNK_BYTES = 512, UNPACKED256_BYTES = 4 * CHUNK_BYTES };

/* 16 quants of a step: rows 4 half .. 4 half + 3. */
typedef v128_t weights256(const uint8_t *block, int chunk, int step, int half, struct constants constants);
/* i16x8: the pairs (a, b) of scales of rows 4 half .. for steps 0..7 (late = 0) or 8..15 (late = 1). */
typedef v128_t scales256(const uint8_t *block, int chunk, int late, int half);

/* What differs between the formats of this family; constants all. */
struct kind256 {
  int panel_bytes;
  int group;    /* neighbouring steps that may be summed in i16; divides 8 */
  int minima;   /* byte offset of u8 minima[4 chunks][8 rows][a, b], after f16 dmin[8] at byte 16; or 0 */
  int by_16;    /* scales change between steps 7 and 8 */
  int centered; /* quants are 32 too large */
};

INLINE v128_t unpacked_weights(const uint8_t *block, int chunk, int step, int half, struct constants constants) {
  (void)constants;
  return load(block + CHUNK_BYTES * chunk + 32 * step + 16 * half);
}

/* Pairs (a, b) of a chunk's record, splat: the factors of 16 values each, early or late, and their sums times the factor; of both halves together. */
INLINE v128_t factors_of_16(const uint8_t *record, int chunk, int late) {
  return wasm_v128_load32_splat(record + offsetof(struct activation_q8x256, factors) + 8 * chunk + 4 * late);
}
INLINE v128_t sums_of_16(const uint8_t *record, int chunk, int late) {
  return wasm_v128_load32_splat(record + offsetof(struct activation_q8x256, sums) + 8 * chunk + 4 * late);
}
INLINE v128_t sums_of_32(const uint8_t *record, int chunk) {
  return wasm_i16x8_add(sums_of_16(record, chunk, 0), sums_of_16(record, chunk, 1));
}

/* dot[t][half] += one chunk's products, scales applied. `block` has the scales, `quants` the weights: the same bytes unless unpacked. */
INLINE void chunk256(v128_t (*dot)[2], const uint8_t *block, const uint8_t *quants, weights256 *weights, scales256 *scales, const struct kind256 kind,
                     const struct constants constants, const uint8_t **record, int chunk, const int tokens) {
  v128_t part[TILE_TOKENS][2][2]; /* [token][late][half] */
  UNROLL for (int n = 0; n < 16; n++) {
    const int step = VISIT(n, 16), late = step >> 3;
    const int is_first = step % kind.group == 0, is_last = (step + 1) % kind.group == 0;
    v128_t w[2], s[2];
    UNROLL for (int half = 0; half < 2; half++) w[half] = weights(quants, chunk, step, half, constants);
    UNROLL for (int half = 0; half < 2; half++) s[half] = scales(block, chunk, kind.by_16 & late, half);
    UNROLL for (int t = 0; t < tokens; t++) {
      const v128_t v = wasm_v128_load32_splat(record[t] + 64 * chunk + 4 * step);
      UNROLL for (int half = 0; half < 2; half++) {
        const v128_t product = dot_i7(v, w[half]);
        part[t][late][half] = is_first ? product : wasm_i16x8_add(part[t][late][half], product);
        if (!is_last) continue;
        const v128_t scale = wasm_i16x8_mul(s[half], factors_of_16(record[t], chunk, late));
        dot[t][half] = wasm_i32x4_add(dot[t][half], wasm_i32x4_dot_i16x8(part[t][late][half], scale));
      }
    }
  }
}

/* The integer that the sums of x contribute to one output: minimum * sum(x), or scale * sum(x). */
INLINE v128_t sums256(const uint8_t *block, scales256 *scales, const struct kind256 kind, const uint8_t *record, const int half) {
  v128_t total = wasm_i32x4_splat(0);
  UNROLL for (int chunk = 0; chunk < 4; chunk++) {
    if (kind.minima) {
      const v128_t minima = wasm_u16x8_load8x8(block + kind.minima + 16 * chunk + 8 * half);
      total = wasm_i32x4_add(total, wasm_i32x4_dot_i16x8(minima, sums_of_32(record, chunk)));
    } else {
      UNROLL for (int late = 0; late < 2; late++) {
        total = wasm_i32x4_add(total, wasm_i32x4_dot_i16x8(scales(block, chunk, late, half), sums_of_16(record, chunk, late)));
      }
    }
  }
  return total;
}

/* out: f32[tokens, 8] for a literal number of tokens. */
INLINE void tile256(float *out, const uint8_t *block, const uint8_t *quants, const int quant_bytes, weights256 *weights, scales256 *scales,
                    const struct kind256 kind, const uint8_t *const *x, int blocks, const int tokens) {
  const struct constants constants = read_constants();
  const uint8_t *record[TILE_TOKENS];
  v128_t total[TILE_TOKENS][2];
  UNROLL for (int t = 0; t < tokens; t++) {
    record[t] = x[t];
    total[t][0] = total[t][1] = wasm_f32x4_splat(0);
  }
  for (int b = 0; b < blocks; b++, block += kind.panel_bytes, quants += quant_bytes) {
    v128_t dot[TILE_TOKENS][2];
    UNROLL for (int t = 0; t < tokens; t++) dot[t][0] = dot[t][1] = wasm_i32x4_splat(0);
    for (int chunk = 0; chunk < 4; chunk++) chunk256(dot, block, quants, weights, scales, kind, constants, record, chunk, tokens);
    v128_t d[2], dmin[2];
    UNROLL for (int half = 0; half < 2; half++) d[half] = load_f16x4(block + 8 * half, constants);
    if (kind.minima) UNROLL for (int half = 0; half < 2; half++) dmin[half] = load_f16x4(block + 16 + 8 * half, constants);
    UNROLL for (int t = 0; t < tokens; t++) {
      const v128_t scale = wasm_v128_load32_splat(record[t] + offsetof(struct activation_q8x256, scale));
      UNROLL for (int half = 0; half < 2; half++) {
        const v128_t sums = sums256(block, scales, kind, record[t], half);
        const v128_t sum = kind.centered ? wasm_i32x4_sub(dot[t][half], wasm_i32x4_shl(sums, 5)) : dot[t][half];
        total[t][half] = madd(wasm_f32x4_convert_i32x4(sum), wasm_f32x4_mul(d[half], scale), total[t][half]);
        if (kind.minima) total[t][half] = nmadd(wasm_f32x4_convert_i32x4(sums), wasm_f32x4_mul(dmin[half], scale), total[t][half]);
      }
      record[t] += sizeof(struct activation_q8x256);
    }
  }
  UNROLL for (int t = 0; t < tokens; t++) {
    wasm_v128_store(out + 8 * t, total[t][0]);
    wasm_v128_store(out + 8 * t + 4, total[t][1]);
  }
}

/* Unpacks the quants of `blocks` blocks; scales are read from the panel. */
INLINE void unpack_panel256(uint8_t *unpacked, const uint8_t *block, weights256 *weights, const int panel_bytes, int blocks) {
  const struct constants constants = read_constants();
  for (int b = 0; b < blocks; b++, block += panel_bytes) {
    for (int chunk = 0; chunk < 4; chunk++, unpacked += CHUNK_BYTES) {
      UNROLL for (int n = 0; n < 16; n++) {
        const int step = VISIT(n, 16);
        UNROLL for (int half = 0; half < 2; half++) wasm_v128_store(unpacked + 32 * step + 16 * half, weights(block, chunk, step, half, constants));
      }
    }
  }
}

/* y: f32[256 blocks] = one row of a panel whose quants are unpacked. */
INLINE void row256(float *y, const uint8_t *block, const uint8_t *unpacked, scales256 *scales, const struct kind256 kind, int row, int blocks) {
  const struct constants constants = read_constants();
  for (int b = 0; b < blocks; b++, block += kind.panel_bytes, unpacked += UNPACKED256_BYTES) {
    float d[8], dmin[8];
    UNROLL for (int half = 0; half < 2; half++) {
      wasm_v128_store(d + 4 * half, load_f16x4(block + 8 * half, constants));
      wasm_v128_store(dmin + 4 * half, kind.minima ? load_f16x4(block + 16 + 8 * half, constants) : wasm_f32x4_splat(0));
    }
    for (int k = 0; k < 256; k++) {
      const int chunk = k / 64, second = k % 64 / 32, l = k % 32;
      int16_t scale[16];
      UNROLL for (int half = 0; half < 2; half++) wasm_v128_store(scale + 8 * half, scales(block, chunk, kind.by_16 & l / 16, half));
      const int quant = unpacked[CHUNK_BYTES * chunk + l / 2 * 32 + 4 * row + 2 * second + l % 2] - (kind.centered ? 32 : 0);
      const float minimum = kind.minima ? dmin[row] * (float)block[kind.minima + 16 * chunk + 2 * row + second] : 0;
      *y++ = d[row] * (float)scale[2 * row + second] * (float)quant - minimum;
    }
  }
}
