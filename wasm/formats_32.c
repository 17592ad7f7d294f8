/* Q4_0 and Q5_0: blocks of 32 with stored integers below 32. The dot products are tile32.h; here is what differs by format. */
#include "blocks.h"
#include "formats.h"
#include "tile32.h"

enum { FIFTH_BITS = 16 + 128 }; /* where Q5_0's fifth bits are: byte 4r + j of rows 0..3, then of rows 4..7; bit `step` */

INLINE v128_t weights_Q4_0(const uint8_t *block, int step, int half, struct constants constants) {
  return nibbles32(block + 16, step & 3, step >> 2, half, constants);
}

INLINE v128_t weights_Q5_0(const uint8_t *block, int step, int half, struct constants constants) {
  const v128_t fifth = bit_to_fifth(load(block + FIFTH_BITS + 16 * half), step, constants);
  return wasm_v128_or(nibbles32(block + 16, step & 3, step >> 2, half, constants), fifth);
}

INLINE int quant_of_Q4_0(const uint8_t *block, int k) { return quant_q4_0((const struct block_q4_0 *)block, k); }
INLINE int quant_of_Q5_0(const uint8_t *block, int k) { return quant_q5_0((const struct block_q5_0 *)block, k); }

typedef int quant_of(const uint8_t *block, int k);

/* Every 32-element block begins with its f16 scale. */
INLINE uint16_t scale_bits(const uint8_t *block) { return (uint16_t)(block[0] | block[1] << 8); }

/* Writes row `row` of one panel block. */
INLINE void repack_block(uint8_t *panel, const uint8_t *block, int row, quant_of *quant, const int bits) {
  panel[2 * row] = block[0];
  panel[2 * row + 1] = block[1];
  UNROLL for (int i = 0; i < 4; i++) {
    UNROLL for (int j = 0; j < 4; j++) {
      const int low = quant(block, 4 * i + j), high = quant(block, 16 + 4 * i + j);
      panel[16 + 32 * i + 4 * row + j] = (uint8_t)((low & 15) | (high & 15) << 4);
    }
  }
  if (bits == 4) return;
  UNROLL for (int j = 0; j < 4; j++) {
    int fifths = 0;
    UNROLL for (int step = 0; step < 8; step++) fifths |= quant(block, 4 * step + j) >> 4 << step;
    panel[FIFTH_BITS + 4 * row + j] = (uint8_t)fifths;
  }
}

INLINE int repack_panel(uint8_t *panel, const uint8_t *rows, int columns, int count, const int bytes, const int panel_bytes, quant_of *quant,
                        const int bits) {
  const int blocks = columns / 32;
  __builtin_memset(panel, 0, (size_t)blocks * (size_t)panel_bytes);
  for (int row = 0; row < count; row++) {
    uint8_t *to = panel;
    for (int b = 0; b < blocks; b++, rows += bytes, to += panel_bytes) {
      if (!f16_is_finite(scale_bits(rows))) return 0;
      repack_block(to, rows, row, quant, bits);
    }
  }
  return 1;
}

/* FORMAT_32(name, bits of a stored integer, steps that may be summed in i16, log2 of the offset) */
#define FORMAT_32(name, bits, group, offset_shift)                                                                                   \
  static int repack_##name(uint8_t *panel, const uint8_t *rows, int columns, int count) {                                           \
    return repack_panel(panel, rows, columns, count, name##_BYTES, name##_PANEL_BYTES, quant_of_##name, bits);                      \
  }                                                                                                                                  \
  static void unpack_##name(float *y, const uint8_t *panel, int row, int columns, uint8_t *scratch) {                               \
    unpack_panel32(scratch, panel, name##_PANEL_BYTES, weights_##name, columns / 32);                                               \
    row32(y, scratch, row, columns / 32, 1 << (offset_shift));                                                                      \
  }                                                                                                                                  \
  TILE_KERNEL(packed_##name, 1, tile32(out, panel, name##_PANEL_BYTES, weights_##name, packed_scales, x, blocks, TILE, group, offset_shift)) \
  TILE_KERNELS(unpacked_##name,                                                                                                      \
               tile32(out, unpacked, UNPACKED32_BYTES, unpacked_weights, unpacked_scales, x, blocks, TILE, group, offset_shift))     \
  static void dot_##name(float *out, const uint8_t *panel, const uint8_t *const *x, int columns, int tokens, uint8_t *scratch) {    \
    if (tokens < UNPACK_FROM_TOKENS) {                                                                                               \
      for (int t = 0; t < tokens; t++) packed_##name##_1(out + 8 * t, panel, 0, x + t, columns / 32);                               \
      return;                                                                                                                        \
    }                                                                                                                                \
    unpack_panel32(scratch, panel, name##_PANEL_BYTES, weights_##name, columns / 32);                                               \
    RUN_TILES(unpacked_##name, out, panel, scratch, x, columns / 32, tokens);                                                        \
  }                                                                                                                                  \
  const struct format format_##name = {FORMAT_ROW(name), .repack = repack_##name, .unpack = unpack_##name, .dot = dot_##name};

FORMAT_32(Q4_0, 4, 8, 3)
FORMAT_32(Q5_0, 5, 4, 4)
