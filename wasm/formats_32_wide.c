/*
 * Q8_0 and IQ4_NL: blocks of 32 with signed weights of eight bits. The dot products are tile32_wide.h; here is what differs by format.
 *
 * Q8_0 panel block:    f16 d[8]; 16 steps of 16 bytes, byte 2r + j = row r, column 2 step + j.
 * IQ4_NL panel block:  f16 d[8]; 4 vectors i of two halves of 16 bytes; byte 8p + 2r + j of a half = row 4 half + r, columns 4i + 2p + j (low
 *                      nibble) and 16 + 4i + 2p + j (high nibble).
 * Unpacked block:      f32 d[8]; then as Q8_0.
 */
#include "blocks.h"
#include "formats.h"
#include "tile32_wide.h"

enum { UNPACKED_BYTES = 32 + 256 };

INLINE v128_t packed_scales(const uint8_t *block, int half, struct constants constants) { return load_f16x4(block + 8 * half, constants); }
INLINE v128_t unpacked_scales(const uint8_t *block, int half, struct constants constants) {
  (void)constants;
  return load(block + 16 * half);
}

INLINE v128_t weights_Q8_0(const uint8_t *block, int step, int half, struct constants constants) {
  (void)constants;
  return wasm_i16x8_load8x8(block + 16 + 16 * step + 8 * half);
}

INLINE v128_t weights_unpacked(const uint8_t *block, int step, int half, struct constants constants) {
  (void)constants;
  return wasm_i16x8_load8x8(block + 32 + 16 * step + 8 * half);
}

/* 16 bytes: steps 2 pair and 2 pair + 1. */
INLINE v128_t bytes_IQ4_NL(const uint8_t *block, int pair, int half, struct constants constants) {
  const v128_t v = load(block + 16 + 32 * (pair & 3) + 16 * half);
  return lookup(constants.iq4_nl, wasm_v128_and(pair & 4 ? wasm_u16x8_shr(v, 4) : v, constants.nibble));
}

INLINE v128_t weights_IQ4_NL(const uint8_t *block, int step, int half, struct constants constants) {
  const v128_t bytes = bytes_IQ4_NL(block, step >> 1, half, constants);
  return step & 1 ? wasm_i16x8_extend_high_i8x16(bytes) : wasm_i16x8_extend_low_i8x16(bytes);
}

INLINE uint16_t scale_bits(const uint8_t *block) { return (uint16_t)(block[0] | block[1] << 8); }

INLINE void repack_block_Q8_0(uint8_t *panel, const uint8_t *block, int row) {
  const struct block_q8_0 *b = (const struct block_q8_0 *)block;
  UNROLL for (int k = 0; k < 32; k++) panel[16 + k / 2 * 16 + 2 * row + k % 2] = (uint8_t)quant_q8_0(b, k);
}

INLINE void repack_block_IQ4_NL(uint8_t *panel, const uint8_t *block, int row) {
  const struct block_iq4_nl *b = (const struct block_iq4_nl *)block;
  UNROLL for (int k = 0; k < 16; k++) {
    const int at = k / 4 * 32 + row / 4 * 16 + k % 4 / 2 * 8 + row % 4 * 2 + k % 2;
    panel[16 + at] = (uint8_t)(quant_iq4_nl(b, k) | quant_iq4_nl(b, 16 + k) << 4);
  }
}

typedef void repack_block(uint8_t *panel, const uint8_t *block, int row);

INLINE int repack_panel(uint8_t *panel, const uint8_t *rows, int columns, int count, const int bytes, const int panel_bytes, repack_block *repack) {
  const int blocks = columns / 32;
  __builtin_memset(panel, 0, (size_t)blocks * (size_t)panel_bytes);
  for (int row = 0; row < count; row++) {
    uint8_t *to = panel;
    for (int b = 0; b < blocks; b++, rows += bytes, to += panel_bytes) {
      if (!f16_is_finite(scale_bits(rows))) return 0;
      to[2 * row] = rows[0];
      to[2 * row + 1] = rows[1];
      repack(to, rows, row);
    }
  }
  return 1;
}

/* Unpacks a panel of nibbles to one of bytes. */
INLINE void unpack_panel_IQ4_NL(uint8_t *unpacked, const uint8_t *block, int blocks) {
  const struct constants constants = read_constants();
  for (int b = 0; b < blocks; b++, block += IQ4_NL_PANEL_BYTES, unpacked += UNPACKED_BYTES) {
    UNROLL for (int half = 0; half < 2; half++) {
      wasm_v128_store(unpacked + 16 * half, packed_scales(block, half, constants));
      UNROLL for (int pair = 0; pair < 8; pair++) {
        const v128_t bytes = bytes_IQ4_NL(block, pair, half, constants);
        uint8_t *to = unpacked + 32 + 32 * pair + 8 * half;
        wasm_v128_store64_lane(to, bytes, 0);
        wasm_v128_store64_lane(to + 16, bytes, 1);
      }
    }
  }
}

/* y: f32[32 blocks] = one row of a panel whose blocks have f32 scales (unpacked) or f16 ones (Q8_0). */
static void row_of_bytes(float *y, const uint8_t *block, const int block_bytes, scales_wide *scales, int values, int row, int blocks) {
  const struct constants constants = read_constants();
  for (int b = 0; b < blocks; b++, block += block_bytes) {
    float d[8];
    UNROLL for (int half = 0; half < 2; half++) wasm_v128_store(d + 4 * half, scales(block, half, constants));
    for (int k = 0; k < 32; k++) *y++ = d[row] * (float)(int8_t)block[values + k / 2 * 16 + 2 * row + k % 2];
  }
}

static int repack_Q8_0(uint8_t *panel, const uint8_t *rows, int columns, int count) {
  return repack_panel(panel, rows, columns, count, Q8_0_BYTES, Q8_0_PANEL_BYTES, repack_block_Q8_0);
}

static void unpack_Q8_0(float *y, const uint8_t *panel, int row, int columns, uint8_t *scratch) {
  (void)scratch;
  row_of_bytes(y, panel, Q8_0_PANEL_BYTES, packed_scales, 16, row, columns / 32);
}

/* Q8_0 needs no unpacking: a load that widens is as cheap as a load. */
TILE_KERNELS(tile_Q8_0, tile32_wide(out, panel, Q8_0_PANEL_BYTES, weights_Q8_0, packed_scales, x, blocks, TILE))

static void dot_Q8_0(float *out, const uint8_t *panel, const uint8_t *const *x, int columns, int tokens, uint8_t *scratch) {
  (void)scratch;
  RUN_TILES(tile_Q8_0, out, panel, 0, x, columns / 32, tokens);
}

static int repack_IQ4_NL(uint8_t *panel, const uint8_t *rows, int columns, int count) {
  return repack_panel(panel, rows, columns, count, IQ4_NL_BYTES, IQ4_NL_PANEL_BYTES, repack_block_IQ4_NL);
}

static void unpack_IQ4_NL(float *y, const uint8_t *panel, int row, int columns, uint8_t *scratch) {
  unpack_panel_IQ4_NL(scratch, panel, columns / 32);
  row_of_bytes(y, scratch, UNPACKED_BYTES, unpacked_scales, 32, row, columns / 32);
}

TILE_KERNEL(packed_IQ4_NL, 1, tile32_wide(out, panel, IQ4_NL_PANEL_BYTES, weights_IQ4_NL, packed_scales, x, blocks, TILE))
TILE_KERNELS(unpacked_IQ4_NL, tile32_wide(out, unpacked, UNPACKED_BYTES, weights_unpacked, unpacked_scales, x, blocks, TILE))

static void dot_IQ4_NL(float *out, const uint8_t *panel, const uint8_t *const *x, int columns, int tokens, uint8_t *scratch) {
  if (tokens < UNPACK_FROM_TOKENS) {
    for (int t = 0; t < tokens; t++) packed_IQ4_NL_1(out + 8 * t, panel, 0, x + t, columns / 32);
    return;
  }
  unpack_panel_IQ4_NL(scratch, panel, columns / 32);
  RUN_TILES(unpacked_IQ4_NL, out, panel, scratch, x, columns / 32, tokens);
}

#define FORMAT_32_WIDE(name) \
  const struct format format_##name = {FORMAT_ROW(name), .wide = 1, .repack = repack_##name, .unpack = unpack_##name, .dot = dot_##name};

FORMAT_32_WIDE(Q8_0)
FORMAT_32_WIDE(IQ4_NL)
