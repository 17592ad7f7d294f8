/*
 * Dot products of 256-element formats (the K formats and IQ4_XS), with records of struct activation_q8x256.
 *
 * A block is four chunks of 64 columns; a chunk is two groups of 32, a and b, and 16 steps. A step's vector of 32 bytes holds for row r
 * the columns
 * a[2 step], a[2 step + 1], b[2 step], b[2 step + 1] at bytes 4r .. 4r + 3: an i16 pair of products is (a, b), and so are the pairs of
 * scales.
 * Nibbles: vector i of 8 per chunk has step i in its low and step i + 8 in its high nibbles.
 *
 * Per block and output: the exact integer sum of scale * factor * quant * x, then one multiply-add; formats with minima then subtract
 * dmin * (sum of minimum * factor * sum(x)); those with an offset subtract scale * offset * factor * sum(x) among the integers. The
 * largest sums
 * are those of Q6_K, 256 columns * 63 * 127 * scale 128 * factor 8 = 2,097,414,144 < 2^31, and IQ4_XS, 256 * 240 * 127 * 32 * 8 =
 * 1,997,537,280.
 *
 * Quants above 127 (IQ4_XS) do not fit the products' 7 bits: they are taken as two hexadecimal digits, each with a sum of its own.
 */
#pragma once
#include <stddef.h>
#include "activations.h"
#include "half.h"
#include "tiles.h"

enum { CHUNK_BYTES = 512, UNPACKED256_BYTES = 4 * CHUNK_BYTES };

/* 16 quants of a step: rows 4 half .. 4 half + 3. */
typedef v128_t weights256(const uint8_t *block, int chunk, int step, int half, struct constants constants);
/* i16x8: the pairs (a, b) of scales, or of minima, of rows 4 half .. for steps 0..7 (late = 0) or 8..15 (late = 1). */
typedef v128_t scales256(const uint8_t *block, int chunk, int late, int half, struct constants constants);

/* How a format reads its blocks; minima is 0 in formats without. */
struct reader256 {
  weights256 *weights;
  scales256 *scales, *minima;
};

/* What differs between the formats of this family; constants all. */
struct kind256 {
  int panel_bytes;
  int group;  /* neighbouring steps that may be summed in i16; divides 8 */
  int minima; /* f16 dmin[8] follows f16 d[8] */
  int by_16;  /* scales change between steps 7 and 8 */
  int offset; /* quants are so much too large */
  int digits; /* 2 when quants exceed 127 */
};

INLINE v128_t unpacked_weights(const uint8_t *block, int chunk, int step, int half, struct constants constants) {
  (void)constants;
  return load(block + CHUNK_BYTES * chunk + 32 * step + 16 * half);
}

/*
 * Pairs (a, b) of a chunk's record, splat: the factors of 16 values each, early or late, and their sums times the factor; of both
 * halves together.
 */
INLINE v128_t factors_of_16(const uint8_t *record, int chunk, int late) {
  return wasm_v128_load32_splat(record + offsetof(struct activation_q8x256, factors) + 8 * chunk + 4 * late);
}
INLINE v128_t sums_of_16(const uint8_t *record, int chunk, int late) {
  return wasm_v128_load32_splat(record + offsetof(struct activation_q8x256, sums) + 8 * chunk + 4 * late);
}
INLINE v128_t sums_of_32(const uint8_t *record, int chunk) {
  return wasm_i16x8_add(sums_of_16(record, chunk, 0), sums_of_16(record, chunk, 1));
}

/* part[half] += products of one step; `first` begins a sum. */
INLINE void add_products(v128_t *part, v128_t v, const v128_t *w, const int first) {
  UNROLL for (int half = 0; half < 2; half++) {
    const v128_t product = dot_i7(v, w[half]);
    part[half] = first ? product : wasm_i16x8_add(part[half], product);
  }
}

/* dot[t][half] += one chunk's products, scales applied. `block` has the scales, `quants` the weights: the same bytes unless unpacked. */
INLINE void chunk256(v128_t (*dot)[2], const uint8_t *block, const uint8_t *quants, const struct reader256 read, const struct kind256 kind,
                     const struct constants constants, const uint8_t **record, int chunk, const int tokens) {
  v128_t part[TILE_SIZE][2][2], high[TILE_SIZE][2][2]; /* [token][late][half] */
  UNROLL for (int n = 0; n < 16; n++) {
    const int step = VISIT(n, 16), late = step >> 3;
    const int is_first = step % kind.group == 0, is_last = (step + 1) % kind.group == 0;
    v128_t w[2], s[2], tens[2];
    UNROLL for (int half = 0; half < 2; half++) w[half] = read.weights(quants, chunk, step, half, constants);
    UNROLL for (int half = 0; half < 2; half++) s[half] = read.scales(block, chunk, kind.by_16 & late, half, constants);
    if (kind.digits == 2) {
      UNROLL for (int half = 0; half < 2; half++) tens[half] = wasm_v128_and(wasm_u16x8_shr(w[half], 4), constants.nibble);
      UNROLL for (int half = 0; half < 2; half++) w[half] = wasm_v128_and(w[half], constants.nibble);
    }
    UNROLL for (int t = 0; t < tokens; t++) {
      const v128_t v = wasm_v128_load32_splat(record[t] + 64 * chunk + 4 * step);
      add_products(part[t][late], v, w, is_first);
      if (kind.digits == 2) add_products(high[t][late], v, tens, is_first);
      if (!is_last) continue;
      UNROLL for (int half = 0; half < 2; half++) {
        const v128_t scale = wasm_i16x8_mul(s[half], factors_of_16(record[t], chunk, late));
        dot[t][half] = wasm_i32x4_add(dot[t][half], wasm_i32x4_dot_i16x8(part[t][late][half], scale));
        if (kind.digits != 2) continue;
        dot[t][half] = wasm_i32x4_add(dot[t][half], wasm_i32x4_shl(wasm_i32x4_dot_i16x8(high[t][late][half], scale), 4));
      }
    }
  }
}

/* The integer that the sums of x contribute to one output: of minimum * sum(x), or of scale * sum(x). */
INLINE v128_t sums256(const uint8_t *block, scales256 *factors, const struct kind256 kind, const struct constants constants, const uint8_t *record,
                      const int half) {
  v128_t total = wasm_i32x4_splat(0);
  UNROLL for (int chunk = 0; chunk < 4; chunk++) {
    if (!kind.by_16) {
      total = wasm_i32x4_add(total, wasm_i32x4_dot_i16x8(factors(block, chunk, 0, half, constants), sums_of_32(record, chunk)));
      continue;
    }
    UNROLL for (int late = 0; late < 2; late++) {
      total = wasm_i32x4_add(total, wasm_i32x4_dot_i16x8(factors(block, chunk, late, half, constants), sums_of_16(record, chunk, late)));
    }
  }
  return total;
}

/*
 * out: f32[panels, tokens, 8] for literal numbers of panels and tokens, of which one is 1. Weights are read from `quants` where that is
 * given (one
 * panel, unpacked), else from the panels.
 */
INLINE void tile256(float *out, const uint8_t *const *panel, const uint8_t *quants, const struct reader256 read, const struct kind256 kind,
                    const uint8_t *const *x, int blocks, const int panels, const int tokens) {
  const struct constants constants = read_constants();
  const uint8_t *block[TILE_SIZE], *record[TILE_SIZE];
  v128_t total[TILE_SIZE][2];
  UNROLL for (int p = 0; p < panels; p++) block[p] = panel[p];
  UNROLL for (int t = 0; t < tokens; t++) record[t] = x[t];
  UNROLL for (int i = 0; i < panels * tokens; i++) total[i][0] = total[i][1] = wasm_f32x4_splat(0);
  for (int b = 0; b < blocks; b++) {
    v128_t dot[TILE_SIZE][2];
    UNROLL for (int i = 0; i < panels * tokens; i++) dot[i][0] = dot[i][1] = wasm_i32x4_splat(0);
    for (int chunk = 0; chunk < 4; chunk++) {
      UNROLL for (int p = 0; p < panels; p++) {
        const uint8_t *weights_at = read.weights == unpacked_weights ? quants : block[p];
        chunk256(dot + p * tokens, block[p], weights_at, read, kind, constants, record, chunk, tokens);
      }
    }
    v128_t d[2], dmin[2];
    UNROLL for (int i = 0; i < panels * tokens; i++) {
      const uint8_t *from = block[i / tokens], *by = record[i % tokens];
      const v128_t scale = wasm_v128_load32_splat(by + offsetof(struct activation_q8x256, scale));
      if (i % tokens == 0) UNROLL for (int half = 0; half < 2; half++) d[half] = load_f16x4(from + 8 * half, constants);
      if (i % tokens == 0 && kind.minima) UNROLL for (int half = 0; half < 2; half++) dmin[half] = load_f16x4(from + 16 + 8 * half, constants);
      UNROLL for (int half = 0; half < 2; half++) {
        const v128_t sums = sums256(from, kind.minima ? read.minima : read.scales, kind, constants, by, half);
        const v128_t sum = kind.offset ? wasm_i32x4_sub(dot[i][half], wasm_i32x4_mul(sums, wasm_i32x4_splat(kind.offset))) : dot[i][half];
        total[i][half] = madd(wasm_f32x4_convert_i32x4(sum), wasm_f32x4_mul(d[half], scale), total[i][half]);
        if (kind.minima) total[i][half] = nmadd(wasm_f32x4_convert_i32x4(sums), wasm_f32x4_mul(dmin[half], scale), total[i][half]);
      }
    }
    quants += UNPACKED256_BYTES;
    UNROLL for (int p = 0; p < panels; p++) block[p] += kind.panel_bytes;
    UNROLL for (int t = 0; t < tokens; t++) record[t] += sizeof(struct activation_q8x256);
  }
  store_tile(out, total, panels * tokens);
}

/* Unpacks the quants of `blocks` blocks; scales are read from the panel. */
INLINE void unpack_panel256(uint8_t *unpacked, const uint8_t *block, weights256 *weights, const int panel_bytes, int blocks) {
  const struct constants constants = read_constants();
  for (int b = 0; b < blocks; b++, block += panel_bytes) {
    for (int chunk = 0; chunk < 4; chunk++, unpacked += CHUNK_BYTES) {
      UNROLL for (int n = 0; n < 16; n++) {
        const int step = VISIT(n, 16);
        store_pair(unpacked + 32 * step, weights(block, chunk, step, 0, constants), weights(block, chunk, step, 1, constants));
      }
    }
  }
}

/* y: f32[256 blocks] = one row of a panel whose quants are unpacked. */
INLINE void row256(float *y, const uint8_t *block, const uint8_t *unpacked, const struct reader256 read, const struct kind256 kind,
                   int row, int blocks) {
  const struct constants constants = read_constants();
  for (int b = 0; b < blocks; b++, block += kind.panel_bytes, unpacked += UNPACKED256_BYTES) {
    float d[8], dmin[8];
    UNROLL for (int half = 0; half < 2; half++) {
      wasm_v128_store(d + 4 * half, load_f16x4(block + 8 * half, constants));
      wasm_v128_store(dmin + 4 * half, kind.minima ? load_f16x4(block + 16 + 8 * half, constants) : wasm_f32x4_splat(0));
    }
    for (int k = 0; k < 256; k += 16) {
      const int chunk = k / 64, second = k % 64 / 32, late = k % 32 / 16;
      int16_t scale[16], minimum[16] = {0};
      UNROLL for (int half = 0; half < 2; half++) {
        wasm_v128_store(scale + 8 * half, read.scales(block, chunk, late, half, constants));
        if (kind.minima) wasm_v128_store(minimum + 8 * half, read.minima(block, chunk, late, half, constants));
      }
      const int pair = 2 * row + second;
      const uint8_t *quants = unpacked + CHUNK_BYTES * chunk + 256 * late + 4 * row + 2 * second;
      for (int l = 0; l < 16; l++) {
        const int quant = quants[l / 2 * 32 + l % 2] - kind.offset;
        *y++ = d[row] * (float)scale[pair] * (float)quant - dmin[row] * (float)minimum[pair];
      }
    }
  }
}
