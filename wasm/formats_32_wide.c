/*
 * Q8_0: blocks of 32 with signed weights of eight bits. The dot products are tile32_wide.h.
 *
 * Panel block: f16 d[8]; 16 steps of 16 bytes, byte 2r + j = row r, column 2 step + j. Nothing is unpacked: a load that widens is as cheap
 * as a load.
 */
#include "blocks.h"
#include "formats.h"
#include "tile32_wide.h"

INLINE v128_t scales_Q8_0(const uint8_t *block, int half, struct constants constants) { return load_f16x4(block + 8 * half, constants); }

INLINE v128_t weights_Q8_0(const uint8_t *block, int step, int half, struct constants constants) {
  (void)constants;
  return wasm_i16x8_load8x8(block + 16 + 16 * step + 8 * half);
}

static int repack_Q8_0(uint8_t *panel, const uint8_t *rows, int columns, int count) {
  const int blocks = columns / 32;
  __builtin_memset(panel, 0, (size_t)blocks * (size_t)Q8_0_PANEL_BYTES);
  for (int row = 0; row < count; row++) {
    uint8_t *to = panel;
    for (int b = 0; b < blocks; b++, rows += Q8_0_BYTES, to += Q8_0_PANEL_BYTES) {
      const struct block_q8_0 *block = (const struct block_q8_0 *)rows;
      if (!f16_is_finite(block->d)) return 0;
      to[2 * row] = rows[0];
      to[2 * row + 1] = rows[1];
      UNROLL for (int k = 0; k < 32; k++) to[16 + k / 2 * 16 + 2 * row + k % 2] = (uint8_t)quant_q8_0(block, k);
    }
  }
  return 1;
}

static void unpack_Q8_0(float *y, const uint8_t *block, int row, int columns, uint8_t *scratch) {
  (void)scratch;
  const struct constants constants = read_constants();
  for (int b = 0; b < columns / 32; b++, block += Q8_0_PANEL_BYTES) {
    float d[8];
    UNROLL for (int half = 0; half < 2; half++) wasm_v128_store(d + 4 * half, scales_Q8_0(block, half, constants));
    for (int k = 0; k < 32; k++) *y++ = d[row] * (float)(int8_t)block[16 + k / 2 * 16 + 2 * row + k % 2];
  }
}

TILE_KERNELS(tile_Q8_0, tile32_wide(out, &panel, Q8_0_PANEL_BYTES, weights_Q8_0, scales_Q8_0, x, blocks, 1, TILE))
STREAMS_KERNEL(streams_Q8_0, tile32_wide(out, panels, Q8_0_PANEL_BYTES, weights_Q8_0, scales_Q8_0, x, blocks, STREAMS, 1))

static void dot_Q8_0(float *out, const uint8_t *panel, const uint8_t *const *x, int columns, int tokens, uint8_t *scratch) {
  (void)scratch;
  RUN_TILES(tile_Q8_0, out, panel, 0, x, columns / 32, tokens);
}

static void decode_Q8_0(float *out, const uint8_t *const *panels, const uint8_t *x, int columns) {
  streams_Q8_0(out, panels, &x, columns / 32);
}

const struct format format_Q8_0 = {
    FORMAT_ROW(Q8_0), .wide = 1, .repack = repack_Q8_0, .unpack = unpack_Q8_0, .dot = dot_Q8_0, .decode = decode_Q8_0};
