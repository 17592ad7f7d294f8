/*
 * Q2_K, Q3_K, Q4_K, Q5_K, Q6_K and IQ4_XS: super-blocks of 256. Dot products and the order of columns: tile256.h; here is what differs
 * by format.
 * Panel blocks begin with f16 d[8]; where each part is follows, in bytes. Pairs are [8 rows][a, b].
 *
 *   Q2_K     16 f16 dmin[8]; 32 u8 pairs[4 chunks][early, late], scale below minimum; 160 two bits
 *   Q3_K     16 u8 pairs[4 chunks] of the scales' low nibbles, early below late; 80 u8 pairs[2] of their two top bits: early and late of
 *            chunk 0, of chunk 1, then of 2 and 3; 112 three bits
 *   Q4_K     16 f16 dmin[8]; 32 u8 pairs[4 chunks] of scales; 96 the same of minima; 160 nibbles
 *   Q5_K     as Q4_K; 1184 fifth bits
 *   Q6_K     16 i8 pairs[4 chunks][early, late] of scales; 144 nibbles; 1168 top bits
 *   IQ4_XS   16 i8 pairs[4 chunks] of scales; 80 nibbles
 *
 * Nibbles: 256 bytes per chunk. Others, per chunk: two bits and top bits 4 vectors of 32 bytes, bits 2 (step % 4) of vector step / 4;
 * fifth bits 2 vectors, steps 0..7 and 8..15, bit step % 8; three bits 3 vectors for steps 0..7 and 3 for 8..15, see weights_Q3_K.
 */
#include "blocks.h"
#include "formats.h"
#include "tile256_prepared.h"

enum { PAIRS = 16, NIBBLES_K = 160, FIFTH_BITS_K = 1184, NIBBLES_6 = 144, TOP_BITS_6 = 1168, NIBBLES_XS = 80 };
enum { PAIRS_K = 32, MINIMA_K = 96, TWO_BITS_2 = 160, TOPS_3 = 80, THREE_BITS_3 = 112 };

INLINE v128_t nibbles256(const uint8_t *nibbles, int chunk, int step, int half, struct constants constants) {
  const v128_t v = load(nibbles + 256 * chunk + 32 * (step & 7) + 16 * half);
  return wasm_v128_and(step & 8 ? wasm_u16x8_shr(v, 4) : v, constants.nibble);
}

/* Bits from `bit` on, moved to bit 4; a 16-bit shift may drag in a neighbour's bits, which the mask removes. */
INLINE v128_t bits_to_fourth(v128_t bits, int bit, v128_t mask) {
  return wasm_v128_and(bit < 4 ? wasm_i16x8_shl(bits, 4 - bit) : wasm_u16x8_shr(bits, bit - 4), mask);
}

INLINE v128_t two_bits(const uint8_t *at, int chunk, int step, int half, struct constants constants) {
  const v128_t v = load(at + 128 * chunk + 32 * (step >> 2) + 16 * half);
  return wasm_v128_and(step & 3 ? wasm_u16x8_shr(v, 2 * (step & 3)) : v, constants.pair);
}

INLINE v128_t weights_Q2_K(const uint8_t *block, int chunk, int step, int half, struct constants constants) {
  return two_bits(block + TWO_BITS_2, chunk, step, half, constants);
}

/*
 * Eight steps of three bits are three bytes: steps 0 and 1, 2 and 3, 4 and 5 in the lowest six bits, and above them the two low bits of step 6, those of
 * step 7, and the third bits of both.
 */
INLINE v128_t weights_Q3_K(const uint8_t *block, int chunk, int step, int half, struct constants constants) {
  const uint8_t *bytes = block + THREE_BITS_3 + 192 * chunk + 96 * (step >> 3) + 16 * half;
  const int at = step & 7;
  if (at < 6) {
    const v128_t v = load(bytes + 32 * (at >> 1));
    return wasm_v128_and(at & 1 ? wasm_u16x8_shr(v, 3) : v, constants.three);
  }
  /* The mask before the shift: the other way round V8 does not find the pairs. */
  const v128_t low = wasm_u16x8_shr(wasm_v128_and(load(bytes + 32 * (at & 1)), constants.top_pair), 6);
  return wasm_v128_or(low, wasm_v128_and(wasm_u16x8_shr(load(bytes + 64), at - 2), constants.third));
}

INLINE v128_t weights_IQ4_XS(const uint8_t *block, int chunk, int step, int half, struct constants constants) {
  return lookup(constants.iq4_xs, nibbles256(block + NIBBLES_XS, chunk, step, half, constants));
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

INLINE v128_t scales_Q2_K(const uint8_t *block, int chunk, int late, int half, struct constants constants) {
  return wasm_v128_and(wasm_u16x8_load8x8(block + PAIRS_K + 32 * chunk + 16 * late + 8 * half), constants.nibble);
}
INLINE v128_t minima_Q2_K(const uint8_t *block, int chunk, int late, int half, struct constants constants) {
  /* Masked first, though nothing is left there: the compiler would shift bytes before it widens them, which V8 does not pair. */
  return wasm_u16x8_shr(wasm_v128_and(wasm_u16x8_load8x8(block + PAIRS_K + 32 * chunk + 16 * late + 8 * half), constants.high_nibble), 4);
}

INLINE v128_t scales_Q3_K(const uint8_t *block, int chunk, int late, int half, struct constants constants) {
  const v128_t nibbles = wasm_u16x8_load8x8(block + PAIRS + 16 * chunk + 8 * half);
  const v128_t low = wasm_v128_and(late ? wasm_u16x8_shr(nibbles, 4) : nibbles, constants.nibble);
  const v128_t tops = wasm_i16x8_shl(wasm_u16x8_load8x8(block + TOPS_3 + 16 * (chunk >> 1) + 8 * half), 4);
  const v128_t high = wasm_v128_and(wasm_u16x8_shr(tops, 4 * (chunk & 1) + 2 * late), constants.scale_tops);
  return wasm_i16x8_sub(wasm_v128_or(low, high), constants.thirty_two);
}

INLINE v128_t scales_Q4_K(const uint8_t *block, int chunk, int late, int half, struct constants constants) {
  (void)late, (void)constants;
  return wasm_u16x8_load8x8(block + PAIRS_K + 16 * chunk + 8 * half);
}
INLINE v128_t minima_Q4_K(const uint8_t *block, int chunk, int late, int half, struct constants constants) {
  (void)late, (void)constants;
  return wasm_u16x8_load8x8(block + MINIMA_K + 16 * chunk + 8 * half);
}

INLINE v128_t scales_Q6_K(const uint8_t *block, int chunk, int late, int half, struct constants constants) {
  (void)constants;
  return wasm_i16x8_load8x8(block + PAIRS + 32 * chunk + 16 * late + 8 * half);
}

INLINE v128_t scales_IQ4_XS(const uint8_t *block, int chunk, int late, int half, struct constants constants) {
  (void)late, (void)constants;
  return wasm_i16x8_load8x8(block + PAIRS + 16 * chunk + 8 * half);
}

typedef int quant_of(const uint8_t *block, int k);
INLINE int quant_of_Q2_K(const uint8_t *block, int k) { return quant_q2_k((const struct block_q2_k *)block, k); }
INLINE int quant_of_IQ4_XS(const uint8_t *block, int k) { return quant_iq4_xs((const struct block_iq4_xs *)block, k); }
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

/* The bits of a quant from `from` on: `bits` of them, 8 / bits steps in a byte. */
INLINE void repack_bits(uint8_t *to, const uint8_t *block, int row, quant_of *quant, const int from, const int bits) {
  const int steps = 8 / bits;
  for (int vector = 0; vector < 4 * 16 / steps; vector++) {
    UNROLL for (int j = 0; j < 4; j++) {
      int byte = 0;
      UNROLL for (int s = 0; s < steps; s++) {
        const int step = vector * steps + s;
        byte |= (quant(block, column_of(step / 16, step % 16, j)) >> from & ((1 << bits) - 1)) << s * bits;
      }
      to[32 * vector + 4 * row + j] = (uint8_t)byte;
    }
  }
}

INLINE void put_f16(uint8_t *panel, int row, uint16_t h) {
  panel[2 * row] = (uint8_t)h;
  panel[2 * row + 1] = (uint8_t)(h >> 8);
}

/* Place among pairs[4 chunks][early, late] of sub-block `sub` of 16. */
INLINE int pair_of_16(int sub, int row) { return sub / 4 * 32 + sub % 2 * 16 + 2 * row + sub / 2 % 2; }

INLINE int repack_block_Q2_K(uint8_t *panel, const uint8_t *block, int row) {
  const struct block_q2_k *b = (const struct block_q2_k *)block;
  if (!f16_is_finite(b->d) || !f16_is_finite(b->dmin)) return 0;
  put_f16(panel, row, b->d);
  put_f16(panel + 16, row, b->dmin);
  for (int sub = 0; sub < 16; sub++) panel[PAIRS_K + pair_of_16(sub, row)] = b->scales[sub];
  repack_bits(panel + TWO_BITS_2, block, row, quant_of_Q2_K, 0, 2);
  return 1;
}

INLINE int repack_block_Q3_K(uint8_t *panel, const uint8_t *block, int row) {
  const struct block_q3_k *b = (const struct block_q3_k *)block;
  if (!f16_is_finite(b->d)) return 0;
  put_f16(panel, row, b->d);
  for (int sub = 0; sub < 16; sub++) {
    const int scale = scale_q3_k(b, sub), chunk = sub / 4, late = sub % 2, second = sub / 2 % 2;
    panel[PAIRS + 16 * chunk + 2 * row + second] |= (uint8_t)((scale & 15) << 4 * late);
    panel[TOPS_3 + 16 * (chunk / 2) + 2 * row + second] |= (uint8_t)(scale >> 4 << (4 * (chunk % 2) + 2 * late));
  }
  for (int eight = 0; eight < 8; eight++) {
    UNROLL for (int j = 0; j < 4; j++) {
      int quants[8];
      UNROLL for (int s = 0; s < 8; s++) quants[s] = quant_q3_k(b, column_of(eight / 2, eight % 2 * 8 + s, j));
      UNROLL for (int i = 0; i < 3; i++) {
        const int above = i < 2 ? quants[6 + i] & 3 : quants[6] >> 2 | quants[7] >> 2 << 1;
        panel[THREE_BITS_3 + 96 * eight + 32 * i + 4 * row + j] = (uint8_t)(quants[2 * i] | quants[2 * i + 1] << 3 | above << 6);
      }
    }
  }
  return 1;
}

INLINE int repack_block_IQ4_XS(uint8_t *panel, const uint8_t *block, int row) {
  const struct block_iq4_xs *b = (const struct block_iq4_xs *)block;
  if (!f16_is_finite(b->d)) return 0;
  put_f16(panel, row, b->d);
  for (int sub = 0; sub < 8; sub++) panel[PAIRS + sub / 2 * 16 + 2 * row + sub % 2] = (uint8_t)(scale_iq4_xs(b, sub) - 32);
  repack_nibbles(panel + NIBBLES_XS, block, row, quant_of_IQ4_XS);
  return 1;
}

/* d, dmin, scales and minima of Q4_K and Q5_K, whose blocks begin alike. */
INLINE int repack_head(uint8_t *panel, const uint8_t *block, int row) {
  const struct block_q4_k *b = (const struct block_q4_k *)block;
  if (!f16_is_finite(b->d) || !f16_is_finite(b->dmin)) return 0;
  put_f16(panel, row, b->d);
  put_f16(panel + 16, row, b->dmin);
  for (int sub = 0; sub < 8; sub++) {
    panel[PAIRS_K + sub / 2 * 16 + 2 * row + sub % 2] = (uint8_t)scale_of_12(b->scales, sub);
    panel[MINIMA_K + sub / 2 * 16 + 2 * row + sub % 2] = (uint8_t)minimum_of_12(b->scales, sub);
  }
  return 1;
}

INLINE int repack_block_Q4_K(uint8_t *panel, const uint8_t *block, int row) {
  repack_nibbles(panel + NIBBLES_K, block, row, quant_of_Q4_K);
  return repack_head(panel, block, row);
}

INLINE int repack_block_Q5_K(uint8_t *panel, const uint8_t *block, int row) {
  repack_nibbles(panel + NIBBLES_K, block, row, quant_of_Q5_K);
  repack_bits(panel + FIFTH_BITS_K, block, row, quant_of_Q5_K, 4, 1);
  return repack_head(panel, block, row);
}

INLINE int repack_block_Q6_K(uint8_t *panel, const uint8_t *block, int row) {
  const struct block_q6_k *b = (const struct block_q6_k *)block;
  if (!f16_is_finite(b->d)) return 0;
  put_f16(panel, row, b->d);
  for (int sub = 0; sub < 16; sub++) panel[PAIRS + pair_of_16(sub, row)] = (uint8_t)b->scales[sub];
  repack_nibbles(panel + NIBBLES_6, block, row, quant_of_Q6_K);
  repack_bits(panel + TOP_BITS_6, block, row, quant_of_Q6_K, 4, 2);
  return 1;
}

typedef int repack_block(uint8_t *panel, const uint8_t *block, int row);

INLINE int repack_panel(uint8_t *panel, const uint8_t *rows, int columns, int count, const int bytes, const int panel_bytes,
                        repack_block *repack) {
  const int blocks = columns / 256;
  __builtin_memset(panel, 0, (size_t)blocks * (size_t)panel_bytes);
  for (int row = 0; row < count; row++) {
    for (int b = 0; b < blocks; b++, rows += bytes) {
      if (!repack(panel + (size_t)b * (size_t)panel_bytes, rows, row)) return 0;
    }
  }
  return 1;
}

/* FORMAT_256(name, PACKED or TABLE, how scales and minima are read, fields of struct kind256) */
#define FORMAT_256(name, how, scales, minima_or_0, ...)                                                                                 \
  static const struct reader256 read_##name = {weights_##name, scales, minima_or_0};                                                    \
  static const struct reader256 reread_##name = {unpacked_weights, scales, minima_or_0};                                                \
  static const struct kind256 kind_##name = {.panel_bytes = name##_PANEL_BYTES, __VA_ARGS__};                                           \
  static int repack_##name(uint8_t *panel, const uint8_t *rows, int columns, int count) {                                               \
    return repack_panel(panel, rows, columns, count, name##_BYTES, name##_PANEL_BYTES, repack_block_##name);                            \
  }                                                                                                                                     \
  static void unpack_##name(float *y, const uint8_t *panel, int row, int columns, uint8_t *scratch) {                                   \
    unpack_panel256(scratch, panel, weights_##name, name##_PANEL_BYTES, columns / 256);                                                 \
    row256(y, panel, scratch, read_##name, kind_##name, row, columns / 256);                                                            \
  }                                                                                                                                     \
  TILE_KERNELS(unpacked_##name, 6, tile256(out, &panel, unpacked, reread_##name, kind_##name, x, blocks, 1, TILE))                      \
  DOT_##how(name)                                                                                                                       \
  const struct format format_##name = {                                                                                                 \
      FORMAT_ROW(name), PREPARE_##how .repack = repack_##name, .unpack = unpack_##name, .dot = dot_##name, .decode = decode_##name};

#define PREPARE_TABLE
#define PREPARE_PACKED .prepare = SUMS_IN_I32 ? prepare_tiles256 : 0, .prepared_bytes = PREPARED256_BYTES, .prepare_from = UNPACK_FROM_TOKENS,

/* Straight from panels for few tokens, unpacked for several; where sums are i32, those meet prepared records. */
#define DOT_PACKED(name)                                                                                                                \
  TILE_KERNELS(prepared_##name, 8, prepared_tile256(out, unpacked, *x, blocks, kind_##name, TILE))                                      \
  TILE_KERNEL(packed_##name, 1, tile256(out, &panel, 0, read_##name, kind_##name, x, blocks, 1, 1))                                     \
  STREAMS_KERNEL(streams_##name, tile256(out, panels, 0, read_##name, kind_##name, x, blocks, STREAMS, 1))                              \
  static void decode_##name(float *out, const uint8_t *const *panels, const uint8_t *x, int columns, uint8_t *scratch) {                \
    (void)scratch;                                                                                                                      \
    streams_##name(out, panels, &x, columns / 256);                                                                                     \
  }                                                                                                                                     \
  static void dot_##name(float *out, const uint8_t *panel, const uint8_t *const *x, int columns, int tokens, uint8_t *scratch) {        \
    if (tokens < UNPACK_FROM_TOKENS) {                                                                                                  \
      for (int t = 0; t < tokens; t++) packed_##name##_1(out + 8 * t, panel, 0, x + t, columns / 256);                                  \
      return;                                                                                                                           \
    }                                                                                                                                   \
    if (SUMS_IN_I32) {                                                                                                                  \
      unpack_prepared256(scratch, panel, read_##name, kind_##name, columns / 256);                                                      \
      RUN_TILES(prepared_##name, 8, out, 0, scratch, x, columns / 256, tokens);                                                         \
      return;                                                                                                                           \
    }                                                                                                                                   \
    unpack_panel256(scratch, panel, weights_##name, name##_PANEL_BYTES, columns / 256);                                                 \
    RUN_TILES(unpacked_##name, 6, out, panel, scratch, x, columns / 256, tokens);                                                       \
  }

/* Nibbles that are looked up in a table: V8 does that in 128 bits, so it is kept apart from the products, for one token too. */
#define DOT_TABLE(name)                                                                                                                 \
  static void dot_##name(float *out, const uint8_t *panel, const uint8_t *const *x, int columns, int tokens, uint8_t *scratch) {        \
    unpack_panel256(scratch, panel, weights_##name, name##_PANEL_BYTES, columns / 256);                                                 \
    RUN_TILES(unpacked_##name, 6, out, panel, scratch, x, columns / 256, tokens);                                                       \
  }                                                                                                                                     \
  static void decode_##name(float *out, const uint8_t *const *panels, const uint8_t *x, int columns, uint8_t *scratch) {                \
    for (int p = 0; p < STREAMS; p++) dot_##name(out + 8 * p, panels[p], &x, columns, 1, scratch);                                      \
  }

FORMAT_256(Q2_K, PACKED, scales_Q2_K, minima_Q2_K, .group = 8, .minima = 1, .by_16 = 1)
FORMAT_256(Q3_K, PACKED, scales_Q3_K, 0, .group = 8, .by_16 = 1, .offset = 4)
FORMAT_256(Q4_K, PACKED, scales_Q4_K, minima_Q4_K, .group = 8, .minima = 1)
FORMAT_256(Q5_K, PACKED, scales_Q4_K, minima_Q4_K, .group = 4, .minima = 1)
FORMAT_256(Q6_K, PACKED, scales_Q6_K, 0, .group = 2, .by_16 = 1, .offset = 32)
FORMAT_256(IQ4_XS, TABLE, scales_IQ4_XS, 0, .group = 8, .offset = 127, .digits = 2)
