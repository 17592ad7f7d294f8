/*
 * Dot products of 32-element formats with signed weights of eight bits (Q8_0): weight = d value.
 *
 * Both sides are i16 and sums i32. A step is two columns; vectors are i16x8: rows 4 half .. 4 half + 3, columns 2 step and 2 step + 1.
 * Records are struct activation_wide. As in tile32.h: one exact integer sum and one multiply-add per block, two halves side by side.
 */
#pragma once
#include "activations.h"
#include "half.h"
#include "tiles.h"

/* i16x8 weights of one step. */
typedef v128_t weights_wide(const uint8_t *block, int step, int half, struct constants constants);
/* Four scales: rows 4 half .. */
typedef v128_t scales_wide(const uint8_t *block, int half, struct constants constants);

/* out: f32[panels, tokens, 8] for literal numbers of panels and tokens, of which one is 1. */
INLINE void tile32_wide(float *out, const uint8_t *const *panel, const int block_bytes, weights_wide *weights, scales_wide *scales,
                        const uint8_t *const *x, int blocks, const int panels, const int tokens) {
  const struct constants constants = read_constants();
  const uint8_t *block[TILE_SIZE], *record[TILE_SIZE];
  v128_t total[TILE_SIZE][2];
  UNROLL for (int p = 0; p < panels; p++) block[p] = panel[p];
  UNROLL for (int t = 0; t < tokens; t++) record[t] = x[t];
  UNROLL for (int i = 0; i < panels * tokens; i++) total[i][0] = total[i][1] = wasm_f32x4_splat(0);
  for (int b = 0; b < blocks; b++) {
    v128_t dot[TILE_SIZE][2];
    UNROLL for (int n = 0; n < 16; n++) {
      const int step = VISIT(n, 16);
      v128_t w[2];
      UNROLL for (int i = 0; i < panels * tokens; i++) {
        const v128_t v = wasm_v128_load32_splat(record[i % tokens] + 4 * step);
        if (i % tokens == 0) UNROLL for (int half = 0; half < 2; half++) w[half] = weights(block[i / tokens], step, half, constants);
        UNROLL for (int half = 0; half < 2; half++) {
          const v128_t product = wasm_i32x4_dot_i16x8(w[half], v);
          dot[i][half] = n == 0 ? product : wasm_i32x4_add(dot[i][half], product);
        }
      }
    }
    v128_t d[2];
    UNROLL for (int i = 0; i < panels * tokens; i++) {
      const v128_t scale = wasm_v128_load32_splat(record[i % tokens] + 64);
      if (i % tokens == 0) UNROLL for (int half = 0; half < 2; half++) d[half] = scales(block[i / tokens], half, constants);
      UNROLL for (int half = 0; half < 2; half++) {
        total[i][half] = madd(wasm_f32x4_convert_i32x4(dot[i][half]), wasm_f32x4_mul(d[half], scale), total[i][half]);
      }
    }
    UNROLL for (int p = 0; p < panels; p++) block[p] += block_bytes;
    UNROLL for (int t = 0; t < tokens; t++) record[t] += sizeof(struct activation_wide);
  }
  store_tile(out, total, panels * tokens);
}
