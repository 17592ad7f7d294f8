/*
 * Dot products of 32-element formats whose stored integers fit 7 bits (Q4_0, Q5_0): weight = d (quant - offset).
 *
 * Panel block: f16 d[8]; nibbles: 4 vectors i of 32 bytes, byte 4r + j = row r, columns 4i + j (low) and 16 + 4i + j (high).
 * Unpacked block: f32 d[8]; 8 steps of 32 bytes, byte 4r + j = row r, column 4 step + j.
 *
 * Per block and output: the exact integer sum of quant * x, minus offset * sum(x), then one multiply-add. Two vectors side by side hold rows 0..3
 * and 4..7 and get the same operations in the same order: V8 can then use one 256-bit operation for both.
 */
#pragma once
#include "activations.h"
#include "half.h"
#include "tiles.h"

enum { UNPACKED32_BYTES = 32 + 256 };

/* 16 quants: rows 4 half .. 4 half + 3, columns 4 step .. 4 step + 3 of a block. */
typedef v128_t weights32(const uint8_t *block, int step, int half, struct constants constants);
/* Four scales: rows 4 half .. */
typedef v128_t scales32(const uint8_t *block, int half, struct constants constants);

INLINE v128_t packed_scales(const uint8_t *block, int half, struct constants constants) { return load_f16x4(block + 8 * half, constants); }
INLINE v128_t unpacked_scales(const uint8_t *block, int half, struct constants constants) {
  (void)constants;
  return load(block + 16 * half);
}
INLINE v128_t unpacked_weights(const uint8_t *block, int step, int half, struct constants constants) {
  (void)constants;
  return load(block + 32 + 32 * step + 16 * half);
}

/* The two nibbles of a 32-byte vector `index` at `nibbles`. */
INLINE v128_t nibbles32(const uint8_t *nibbles, int index, int high, int half, struct constants constants) {
  const v128_t v = load(nibbles + 32 * index + 16 * half);
  return wasm_v128_and(high ? wasm_u16x8_shr(v, 4) : v, constants.nibble);
}

/* Bit `bit` of every byte moved to bit 4; a 16-bit shift may drag in a neighbour's bits, which the mask removes. */
INLINE v128_t bit_to_fifth(v128_t bits, int bit, struct constants constants) {
  const v128_t moved = bit < 4 ? wasm_i16x8_shl(bits, 4 - bit) : wasm_u16x8_shr(bits, bit - 4);
  return wasm_v128_and(moved, constants.fifth);
}

/*
 * out: f32[tokens, 8] for a literal number of tokens. `group` steps are summed in i16: 8 for 4 bits, 4 for 5 bits (each step adds at most
 * 2 * quant * 127). offset = 1 << offset_shift.
 */
INLINE void tile32(float *out, const uint8_t *block, const int block_bytes, weights32 *weights, scales32 *scales, const uint8_t *const *x, int blocks,
                   const int tokens, const int group, const int offset_shift) {
  const struct constants constants = read_constants();
  const uint8_t *record[TILE_TOKENS];
  v128_t total[TILE_TOKENS][2];
  UNROLL for (int t = 0; t < tokens; t++) {
    record[t] = x[t];
    total[t][0] = total[t][1] = wasm_f32x4_splat(0);
  }
  for (int b = 0; b < blocks; b++, block += block_bytes) {
    v128_t dot[TILE_TOKENS][2], part[TILE_TOKENS][2];
    UNROLL for (int n = 0; n < 8; n++) {
      const int step = VISIT(n, 8);
      v128_t w[2];
      UNROLL for (int half = 0; half < 2; half++) w[half] = weights(block, step, half, constants);
      UNROLL for (int t = 0; t < tokens; t++) {
        const v128_t v = wasm_v128_load32_splat(record[t] + 4 * step);
        UNROLL for (int half = 0; half < 2; half++) {
          const v128_t product = dot_i7(v, w[half]);
          part[t][half] = n % group == 0 ? product : wasm_i16x8_add(part[t][half], product);
          if ((n + 1) % group != 0) continue;
          const v128_t sum = wasm_i32x4_extadd_pairwise_i16x8(part[t][half]);
          dot[t][half] = n < group ? sum : wasm_i32x4_add(dot[t][half], sum);
        }
      }
    }
    v128_t d[2];
    UNROLL for (int half = 0; half < 2; half++) d[half] = scales(block, half, constants);
    UNROLL for (int t = 0; t < tokens; t++) {
      const v128_t scale = wasm_v128_load32_splat(record[t] + 32);
      const v128_t offset = wasm_i32x4_shl(wasm_v128_load32_splat(record[t] + 36), offset_shift);
      UNROLL for (int half = 0; half < 2; half++) {
        const v128_t sum = wasm_f32x4_convert_i32x4(wasm_i32x4_sub(dot[t][half], offset));
        total[t][half] = madd(sum, wasm_f32x4_mul(d[half], scale), total[t][half]);
      }
      record[t] += sizeof(struct activation_q8x32);
    }
  }
  UNROLL for (int t = 0; t < tokens; t++) {
    wasm_v128_store(out + 8 * t, total[t][0]);
    wasm_v128_store(out + 8 * t + 4, total[t][1]);
  }
}

/* Unpacks `blocks` blocks of a panel. */
INLINE void unpack_panel32(uint8_t *unpacked, const uint8_t *block, const int block_bytes, weights32 *weights, int blocks) {
  const struct constants constants = read_constants();
  for (int b = 0; b < blocks; b++, block += block_bytes, unpacked += UNPACKED32_BYTES) {
    UNROLL for (int half = 0; half < 2; half++) wasm_v128_store(unpacked + 16 * half, packed_scales(block, half, constants));
    UNROLL for (int n = 0; n < 8; n++) {
      const int step = VISIT(n, 8);
      UNROLL for (int half = 0; half < 2; half++) wasm_v128_store(unpacked + 32 + 32 * step + 16 * half, weights(block, step, half, constants));
    }
  }
}

/* y: f32[32 blocks] = one row of an unpacked panel. */
INLINE void row32(float *y, const uint8_t *unpacked, int row, int blocks, int offset) {
  for (int b = 0; b < blocks; b++, unpacked += UNPACKED32_BYTES) {
    const float d = ((const float *)unpacked)[row];
    for (int k = 0; k < 32; k++) *y++ = d * (float)(unpacked[32 + k / 4 * 32 + row * 4 + k % 4] - offset);
  }
}
