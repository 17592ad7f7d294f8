/*
 * Q4_K, Q5_K and Q6_K: super-blocks of 256. The dot products and the order of columns are tile256.h; here is what differs by format.
 *
 *           Q4_K, Q5_K                          Q6_K
 *   0       f16 d[8]                            f16 d[8]
 *   16      f16 dmin[8]                         i8 scales[4 chunks][early, late][8 rows][a, b]
 *   32      u8 scales[4 chunks][8 rows][a, b]
 *   96      u8 minima, the same
 *   160     nibbles, 4 x 256 bytes              (at 144)
 *   1184    Q5_K: fifth bits, 4 x 64 bytes      (at 1168) two top bits, 4 x 128 bytes
 *
 * Fifth bits: per chunk 2 vectors of 32 bytes, steps 0..7 and 8..15, bit step % 8. Top bits: per chunk 4 vectors, bits 2 (step % 4) of vector step / 4.
 */
#include "blocks.h"
#include "formats.h"
#include "tile256.h"

enum { NIBBLES_K = 160, FIFTH_BITS_K = 1184, NIBBLES_6 = 144, TOP_BITS_6 = 1168 };

INLINE v128_t nibbles256(const uint8_t *nibbles, int chunk, int step, int half, struct constants constants) {
  const v128_t v = load(nibbles + 256 * chunk + 32 * (step & 7) + 16 * half);
  return wasm_v128_and(step & 8 ? wasm_u16x8_shr(v, 4) : v, constants.nibble);
}

/* Bits from `bit` on, moved to bit 4; a 16-bit shift may drag in a neighbour's bits, which the mask removes. */
INLINE v128_t bits_to_fourth(v128_t bits, int bit, v128_t mask) {
  return wasm_v128_and(bit < 4 ? wasm_i16x8_shl(bits, 4 - bit) : wasm_u16x8_shr(bits, bit - 4), mask);
}

INLINE v128_t weights_Q4_K(const uint8_t *block, int chunk, int step, int half, struct constants constants) {
  return nibbles256(block + NIBBLES_K, chunk, step, half, constants);
}

INLINE v128_t weights_Q5_K(const uint8_t *block, int chunk, int step, int half, struct constants constants) {
  const v128_t bits = load(block + FIFTH_BITS_K + 64 * chunk + 32 * (step >> 3) + 16 * half);
  return wasm_v128_or(nibbles256(block + NIBBLES_K, chunk, step, half, constants), bits_to_fourth(bits, step & 7, constants.fifth));
}

INLINE v128_t weights_Q6_K(const uint8_t *block, int chunk, int step, int half, struct constants constants) {
  const v128_t bits = load(block + TOP_BITS_6 + 128 * chunk + 32 * (step >> 2) + 16 * half);
  return wasm_v128_or(nibbles256(block + NIBBLES_6, chunk, step, half, constants), bits_to_fourth(bits, 2 * (step & 3), constants.sixth));
}

INLINE v128_t scales_Q4_K(const uint8_t *block, int chunk, int late, int half) {
  (void)late;
  return wasm_u16x8_load8x8(block + 32 + 16 * chunk + 8 * half);
}
#define scales_Q5_K scales_Q4_K

INLINE v128_t scales_Q6_K(const uint8_t *block, int chunk, int late, int half) {
  return wasm_i16x8_load8x8(block + 16 + 32 * chunk + 16 * late + 8 * half);
}

typedef int quant_of(const uint8_t *block, int k);
INLINE int quant_of_Q4_K(const uint8_t *block, int k) { return quant_q4_k((const struct block_q4_k *)block, k); }
INLINE int quant_of_Q5_K(const uint8_t *block, int k) { return quant_q5_k((const struct block_q5_k *)block, k); }
INLINE int quant_of_Q6_K(const uint8_t *block, int k) { return quant_q6_k((const struct block_q6_k *)block, k); }

/* Column of byte j (0..3) of a step: a, a, b, b. */
INLINE int column_of(int chunk, int step, int j) { return 64 * chunk + 32 * (j >> 1) + 2 * step + (j & 1); }

INLINE void repack_nibbles(uint8_t *nibbles, const uint8_t *block, int row, quant_of *quant) {
  for (int chunk = 0; chunk < 4; chunk++) {
    for (int i = 0; i < 8; i++) {
      UNROLL for (int j = 0; j < 4; j++) {
        const int low = quant(block, column_of(chunk, i, j)), high = quant(block, column_of(chunk, i + 8, j));
        nibbles[256 * chunk + 32 * i + 4 * row + j] = (uint8_t)((low & 15) | (high & 15) << 4);
      }
    }
  }
}

/* The bits above the nibble: `bits` of them per quant, 8 / bits steps in a byte. */
INLINE void repack_tops(uint8_t *tops, const uint8_t *block, int row, quant_of *quant, const int bits) {
  const int steps = 8 / bits;
  for (int vector = 0; vector < 4 * 16 / steps; vector++) {
    UNROLL for (int j = 0; j < 4; j++) {
      int byte = 0;
      UNROLL for (int s = 0; s < steps; s++) {
        const int step = vector * steps + s;
        byte |= quant(block, column_of(step / 16, step % 16, j)) >> 4 << s * bits;
      }
      tops[32 * vector + 4 * row + j] = (uint8_t)byte;
    }
  }
}

INLINE void put_f16(uint8_t *panel, int row, uint16_t h) {
  panel[2 * row] = (uint8_t)h;
  panel[2 * row + 1] = (uint8_t)(h >> 8);
}

/* d, dmin, scales and minima of Q4_K and Q5_K, whose blocks begin alike. */
INLINE int repack_head(uint8_t *panel, const uint8_t *block, int row) {
  const struct block_q4_k *b = (const struct block_q4_k *)block;
  if (!f16_is_finite(b->d) || !f16_is_finite(b->dmin)) return 0;
  put_f16(panel, row, b->d);
  put_f16(panel + 16, row, b->dmin);
  for (int sub = 0; sub < 8; sub++) {
    panel[32 + sub / 2 * 16 + 2 * row + sub % 2] = (uint8_t)scale_of_12(b->scales, sub);
    panel[96 + sub / 2 * 16 + 2 * row + sub % 2] = (uint8_t)minimum_of_12(b->scales, sub);
  }
  return 1;
}

INLINE int repack_block_Q4_K(uint8_t *panel, const uint8_t *block, int row) {
  repack_nibbles(panel + NIBBLES_K, block, row, quant_of_Q4_K);
  return repack_head(panel, block, row);
}

INLINE int repack_block_Q5_K(uint8_t *panel, const uint8_t *block, int row) {
  repack_nibbles(panel + NIBBLES_K, block, row, quant_of_Q5_K);
  repack_tops(panel + FIFTH_BITS_K, block, row, quant_of_Q5_K, 1);
  return repack_head(panel, block, row);
}

INLINE int repack_block_Q6_K(uint8_t *panel, const uint8_t *block, int row) {
  const struct block_q6_k *b = (const struct block_q6_k *)block;
  if (!f16_is_finite(b->d)) return 0;
  put_f16(panel, row, b->d);
  for (int k = 0; k < 256; k += 16) {
    const int late = k % 32 / 16, second = k % 64 / 32;
    panel[16 + k / 64 * 32 + late * 16 + 2 * row + second] = (uint8_t)b->scales[k / 16];
  }
  repack_nibbles(panel + NIBBLES_6, block, row, quant_of_Q6_K);
  repack_tops(panel + TOP_BITS_6, block, row, quant_of_Q6_K, 2);
  return 1;
}

typedef int repack_block(uint8_t *panel, const uint8_t *block, int row);

INLINE int repack_panel(uint8_t *panel, const uint8_t *rows, int columns, int count, const int bytes, const int panel_bytes, repack_block *repack) {
  const int blocks = columns / 256;
  __builtin_memset(panel, 0, (size_t)blocks * (size_t)panel_bytes);
  for (int row = 0; row < count; row++) {
    for (int b = 0; b < blocks; b++, rows += bytes) {
      if (!repack(panel + (size_t)b * (size_t)panel_bytes, rows, row)) return 0;
    }
  }
  return 1;
}

/* FORMAT_256(name, fields of struct kind256) */
#define FORMAT_256(name, ...)                                                                                                           \
  static const struct kind256 kind_##name = {.panel_bytes = name##_PANEL_BYTES, __VA_ARGS__};                                          \
  static int repack_##name(uint8_t *panel, const uint8_t *rows, int columns, int count) {                                              \
    return repack_panel(panel, rows, columns, count, name##_BYTES, name##_PANEL_BYTES, repack_block_##name);                           \
  }                                                                                                                                     \
  static void unpack_##name(float *y, const uint8_t *panel, int row, int columns, uint8_t *scratch) {                                  \
    unpack_panel256(scratch, panel, weights_##name, name##_PANEL_BYTES, columns / 256);                                                \
    row256(y, panel, scratch, scales_##name, kind_##name, row, columns / 256);                                                         \
  }                                                                                                                                     \
  TILE_KERNEL(packed_##name, 1, tile256(out, panel, panel, name##_PANEL_BYTES, weights_##name, scales_##name, kind_##name, x, blocks, TILE)) \
  TILE_KERNELS(unpacked_##name,                                                                                                         \
               tile256(out, panel, unpacked, UNPACKED256_BYTES, unpacked_weights, scales_##name, kind_##name, x, blocks, TILE))         \
  static void dot_##name(float *out, const uint8_t *panel, const uint8_t *const *x, int columns, int tokens, uint8_t *scratch) {       \
    if (tokens < UNPACK_FROM_TOKENS) {                                                                                                  \
      for (int t = 0; t < tokens; t++) packed_##name##_1(out + 8 * t, panel, 0, x + t, columns / 256);                                 \
      return;                                                                                                                           \
    }                                                                                                                                   \
    unpack_panel256(scratch, panel, weights_##name, name##_PANEL_BYTES, columns / 256);                                                \
    RUN_TILES(unpacked_##name, out, panel, scratch, x, columns / 256, tokens);                                                          \
  }                                                                                                                                     \
  const struct format format_##name = {FORMAT_ROW(name), .repack = repack_##name, .unpack = unpack_##name, .dot = dot_##name};

FORMAT_256(Q4_K, .group = 8, .minima = 96)
FORMAT_256(Q5_K, .group = 4, .minima = 96)
FORMAT_256(Q6_K, .group = 2, .by_16 = 1, .centered = 1)
