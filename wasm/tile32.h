/*
 * Dot products of 32-element formats: weight = d (quant - offset), or d quant + m, with quants from 0 to 127; or d quant with signed quants of
 * eight bits.
 *
 * Panel block: f16 d[8]; f16 m[8] in formats that have it; nibbles: 4 vectors i of 32 bytes, byte 4r + j = row r, columns 4i + j (low) and
 * 16 + 4i + j (high).
 * Unpacked block: f32 d[8]; 8 steps of 32 bytes, byte 4r + j = row r, column 4 step + j; f32 m[8] in formats that have it.
 *
 * Per block and output: the exact integer sum of quant * x, minus offset * sum(x), then one multiply-add; formats with m then add m *
 * sum(x). Two
 * vectors side by side hold rows 0..3 and 4..7 and get the same operations in the same order: V8 can then use one 256-bit operation for
 * both.
 *
 * Signed quants do not fit the products' 7 bits: they are multiplied as 16 bits, or, where sums are i32, with the positive and the negative
 * activations apart. Their records are struct activation_wide.
 */
#pragma once
#include "activations.h"
#include "half.h"
#include "tiles.h"

enum { UNPACKED32_MINIMA = 32 + 256 };

/* 16 quants: rows 4 half .. 4 half + 3, columns 4 step .. 4 step + 3 of a block. */
typedef v128_t weights32(const uint8_t *block, int step, int half, struct constants constants);
/* Four scales: rows 4 half .. */
typedef v128_t scales32(const uint8_t *block, int half, struct constants constants);

/* What differs between the formats of this family; constants all. */
struct kind32 {
  int block_bytes; /* of a panel, or unpacked */
  int group;       /* neighbouring steps that may be summed in i16: 8 for 4 bits, 4 for 5 (each adds at most 2 * quant * 127) */
  int offset;
  int minima; /* byte offset of m[8], or 0 */
  int is_signed;   /* then offset 0 and no minima */
};

/*
 * Neighbouring steps that are summed before they are added to the block's sum. In i32 that is shorter than it need be: V8 loads the operands of all of
 * a chain's steps before the first, and has registers for four.
 */
INLINE int chain_of(const struct kind32 kind) { return SUMS_IN_I32 ? 4 : kind.is_signed ? 1 : kind.group; }
INLINE int record_bytes32(const struct kind32 kind) {
  return kind.is_signed ? (int)sizeof(struct activation_wide) : (int)sizeof(struct activation_q8x32);
}

INLINE int unpacked32_bytes(const struct kind32 kind) { return kind.minima ? UNPACKED32_MINIMA + 32 : UNPACKED32_MINIMA; }
INLINE struct kind32 unpacked_kind32(struct kind32 kind) {
  kind.block_bytes = unpacked32_bytes(kind);
  if (kind.minima) kind.minima = UNPACKED32_MINIMA;
  return kind;
}

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

/* part[half] += products of one step, in i16 or i32; `first` begins a sum. */
INLINE void add_products(v128_t *part, const uint8_t *record, int step, const v128_t *w, const int first) {
  const v128_t v = wasm_v128_load32_splat(record + 4 * step);
  UNROLL for (int half = 0; half < 2; half++) {
    if (SUMS_IN_I32) {
      part[half] = dot_i7_add(v, w[half], first ? wasm_i32x4_splat(0) : part[half]);
    } else {
      const v128_t product = dot_i7(v, w[half]);
      part[half] = first ? product : wasm_i16x8_add(part[half], product);
    }
  }
}

/* The same for signed weights, in i32; minus[half] is what is to be subtracted. */
INLINE void add_signed_products(v128_t *part, v128_t *minus, const uint8_t *record, int step, const v128_t *w, const int first) {
  const v128_t v = wasm_v128_load32_splat(record + (SUMS_IN_I32 ? 4 * step : 8 * step));
  const v128_t v2 = wasm_v128_load32_splat(record + (SUMS_IN_I32 ? 32 + 4 * step : 8 * step + 4));
  UNROLL for (int half = 0; half < 2; half++) {
    if (SUMS_IN_I32) {
      part[half] = dot_i7_add(w[half], v, first ? wasm_i32x4_splat(0) : part[half]);
      minus[half] = dot_i7_add(w[half], v2, first ? wasm_i32x4_splat(0) : minus[half]);
    } else {
      const v128_t even = wasm_i32x4_dot_i16x8(wasm_i16x8_shr(wasm_i16x8_shl(w[half], 8), 8), v);
      part[half] = wasm_i32x4_add(even, wasm_i32x4_dot_i16x8(wasm_i16x8_shr(w[half], 8), v2));
    }
  }
}

/*
 * out: f32[panels, tokens, 8] for literal numbers of panels and tokens, of which one is 1. `minima` reads m as `scales` reads d; with `goes_on` the sums
 * go on from what is in out.
 */
INLINE void tile32(float *out, const uint8_t *const *panel, const struct kind32 kind, weights32 *weights, scales32 *scales, scales32 *minima,
                   const uint8_t *const *x, int blocks, const int panels, const int tokens, const int goes_on) {
  const struct constants constants = read_constants();
  const int chain = chain_of(kind), scale_at = record_bytes32(kind) - 8;
  const uint8_t *block[TILE_SIZE], *record[TILE_SIZE];
  v128_t total[TILE_SIZE][2];
  UNROLL for (int p = 0; p < panels; p++) block[p] = panel[p];
  UNROLL for (int t = 0; t < tokens; t++) record[t] = x[t];
  UNROLL for (int i = 0; i < panels * tokens; i++) {
    UNROLL for (int half = 0; half < 2; half++) total[i][half] = goes_on ? load(out + 8 * i + 4 * half) : wasm_f32x4_splat(0);
  }
  for (int b = 0; b < blocks; b++) {
    v128_t dot[TILE_SIZE][2], part[TILE_SIZE][2], minus[TILE_SIZE][2];
    UNROLL for (int p = 0; p < panels; p++) {
      UNROLL for (int n = 0; n < 8; n++) {
        const int step = VISIT(n, 8), is_first = n % chain == 0, is_last = (n + 1) % chain == 0;
        v128_t w[2];
        UNROLL for (int half = 0; half < 2; half++) w[half] = weights(block[p], step, half, constants);
        UNROLL for (int t = 0; t < tokens; t++) {
          const int i = p * tokens + t;
          if (kind.is_signed) add_signed_products(part[i], minus[i], record[t], step, w, is_first);
          else add_products(part[i], record[t], step, w, is_first);
          if (!is_last) continue;
          UNROLL for (int half = 0; half < 2; half++) {
            v128_t sum = part[i][half];
            if (!SUMS_IN_I32 && !kind.is_signed) sum = wasm_i32x4_extadd_pairwise_i16x8(sum);
            if (SUMS_IN_I32 && kind.is_signed) sum = wasm_i32x4_sub(sum, minus[i][half]);
            dot[i][half] = n < chain ? sum : wasm_i32x4_add(dot[i][half], sum);
          }
        }
      }
    }
    v128_t d[2], m[2];
    UNROLL for (int i = 0; i < panels * tokens; i++) {
      const uint8_t *from = block[i / tokens];
      const v128_t scale = wasm_v128_load32_splat(record[i % tokens] + scale_at), sum_of_x = wasm_v128_load32_splat(record[i % tokens] + scale_at + 4);
      const v128_t offset = wasm_i32x4_mul(sum_of_x, wasm_i32x4_splat(kind.offset));
      if (i % tokens == 0) UNROLL for (int half = 0; half < 2; half++) d[half] = scales(from, half, constants);
      if (i % tokens == 0 && kind.minima) UNROLL for (int half = 0; half < 2; half++) m[half] = minima(from + kind.minima, half, constants);
      UNROLL for (int half = 0; half < 2; half++) {
        const v128_t sum = wasm_f32x4_convert_i32x4(kind.offset ? wasm_i32x4_sub(dot[i][half], offset) : dot[i][half]);
        total[i][half] = madd(sum, wasm_f32x4_mul(d[half], scale), total[i][half]);
        if (!kind.minima) continue;
        /* The sum of x is the same for both halves; without the part that differs, V8 would give up the pair. */
        const v128_t same = wasm_i32x4_add(wasm_v128_and(dot[i][half], constants.zero), sum_of_x);
        total[i][half] = madd(wasm_f32x4_convert_i32x4(same), wasm_f32x4_mul(m[half], scale), total[i][half]);
      }
    }
    UNROLL for (int p = 0; p < panels; p++) block[p] += kind.block_bytes;
    UNROLL for (int t = 0; t < tokens; t++) record[t] += record_bytes32(kind);
  }
  store_tile(out, total, panels * tokens);
}

/* Tokens that meet STREAMS panels at the same time: there are registers for the sums of so many. */
enum { STREAM_PAIR = 2 };

/*
 * out: f32[STREAM_PAIR, STREAMS, 8], which the sums go on from: the panels of a format with an offset and its nibbles behind f16 d[8], times two records,
 * for sums in i32. What tile32 gives, to the bit; but nibbles are split once, a third of the operations. The loop over nibbles must stay one, and
 * addresses that LLVM would work out apart are hidden from it, or V8 does not pair what is there (decision 5).
 */
INLINE void nibbles_by_two32(float *out, const uint8_t *const *panels, const struct kind32 kind, const uint8_t *const *x, int blocks) {
  enum { HEAD = 16, NIBBLES = 128 };
  float *to[STREAM_PAIR] = {out, out + 8 * STREAMS};
  __asm__("" : "+r"(to[0]), "+r"(to[1]));
  const struct constants constants = read_constants();
  v128_t total[STREAMS][STREAM_PAIR][2];
  const uint8_t *quants[STREAMS], *values[STREAM_PAIR];
  UNROLL for (int p = 0; p < STREAMS; p++) quants[p] = panels[p] + HEAD;
  UNROLL for (int t = 0; t < STREAM_PAIR; t++) values[t] = x[t];
  UNROLL for (int p = 0; p < STREAMS; p++) {
    UNROLL for (int t = 0; t < STREAM_PAIR; t++) UNROLL for (int half = 0; half < 2; half++) total[p][t][half] = load(to[t] + 8 * p + 4 * half);
  }
  for (int b = 0; b < blocks; b++) {
    v128_t dot[STREAMS][STREAM_PAIR][2];
    UNROLL for (int p = 0; p < STREAMS; p++) {
      UNROLL for (int t = 0; t < STREAM_PAIR; t++) dot[p][t][0] = dot[p][t][1] = wasm_i32x4_splat(0);
    }
    const uint8_t *const end = values[0] + 16;
    NO_UNROLL for (; values[0] < end;) {
      UNROLL for (int p = 0; p < STREAMS; p++) {
        v128_t low[2], high[2];
        UNROLL for (int half = 0; half < 2; half++) {
          const v128_t v = load(quants[p] + 16 * half);
          low[half] = wasm_v128_and(v, constants.nibble);
          high[half] = wasm_v128_and(wasm_u16x8_shr(v, 4), constants.nibble);
        }
        UNROLL for (int t = 0; t < STREAM_PAIR; t++) {
          add_products(dot[p][t], values[t], 0, low, 0);
          add_products(dot[p][t], values[t], 4, high, 0);
        }
      }
      UNROLL for (int p = 0; p < STREAMS; p++) quants[p] += 32;
      UNROLL for (int t = 0; t < STREAM_PAIR; t++) values[t] += 4;
    }
    UNROLL for (int p = 0; p < STREAMS; p++) {
      v128_t d[2];
      const uint8_t *from = quants[p] - HEAD - NIBBLES;
      __asm__("" : "+r"(from));
      UNROLL for (int half = 0; half < 2; half++) d[half] = packed_scales(from, half, constants);
      UNROLL for (int t = 0; t < STREAM_PAIR; t++) {
        const v128_t scale = wasm_v128_load32_splat(values[t] + 16);
        const v128_t offset = wasm_i32x4_mul(wasm_v128_load32_splat(values[t] + 20), wasm_i32x4_splat(kind.offset));
        UNROLL for (int half = 0; half < 2; half++) {
          const v128_t sum = wasm_f32x4_convert_i32x4(wasm_i32x4_sub(dot[p][t][half], offset));
          total[p][t][half] = madd(sum, wasm_f32x4_mul(d[half], scale), total[p][t][half]);
        }
      }
      quants[p] += HEAD;
    }
    UNROLL for (int t = 0; t < STREAM_PAIR; t++) values[t] += sizeof(struct activation_q8x32) - 16;
  }
  UNROLL for (int t = 0; t < STREAM_PAIR; t++) {
    UNROLL for (int p = 0; p < STREAMS; p++) store_pair(to[t] + 8 * p, total[p][t][0], total[p][t][1]);
  }
}

/* Unpacks one block. */
INLINE void unpack_block32(uint8_t *unpacked, const uint8_t *block, const struct kind32 kind, weights32 *weights, scales32 *scales,
                           struct constants constants) {
  store_pair(unpacked, scales(block, 0, constants), scales(block, 1, constants));
  if (kind.minima) {
    const uint8_t *m = block + kind.minima;
    store_pair(unpacked + UNPACKED32_MINIMA, packed_scales(m, 0, constants), packed_scales(m, 1, constants));
  }
  UNROLL for (int n = 0; n < 8; n++) {
    const int step = VISIT(n, 8);
    store_pair(unpacked + 32 + 32 * step, weights(block, step, 0, constants), weights(block, step, 1, constants));
  }
}

/* Unpacks `blocks` blocks of a panel. */
INLINE void unpack_panel32(uint8_t *unpacked, const uint8_t *block, const struct kind32 kind, weights32 *weights, scales32 *scales, int blocks) {
  const struct constants constants = read_constants();
  for (int b = 0; b < blocks; b++, block += kind.block_bytes, unpacked += unpacked32_bytes(kind)) {
    unpack_block32(unpacked, block, kind, weights, scales, constants);
  }
}

/* y: f32[32 blocks] = one row of an unpacked panel. */
INLINE void row32(float *y, const uint8_t *unpacked, const struct kind32 kind, int row, int blocks) {
  for (int b = 0; b < blocks; b++, unpacked += unpacked32_bytes(kind)) {
    const float d = ((const float *)unpacked)[row], m = kind.minima ? ((const float *)(unpacked + UNPACKED32_MINIMA))[row] : 0;
    for (int k = 0; k < 32; k++) {
      const uint8_t quant = unpacked[32 + k / 4 * 32 + row * 4 + k % 4];
      const float product = d * (float)(kind.is_signed ? (int8_t)quant : quant - kind.offset);
      *y++ = kind.minima ? product + m : product;
    }
  }
}
