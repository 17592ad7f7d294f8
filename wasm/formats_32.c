/* Q4_0, Q4_1, Q5_0, Q5_1, IQ4_NL, MXFP4 and Q8_0: blocks of 32. The dot products are tile32.h; here is what differs by format. */
#include "blocks.h"
#include "formats.h"
#include "tile32_prepared.h"

/* Bytes before the nibbles: f16 d[8]; f16 d[8] and m[8]; MXFP4's u8 e[8]. Behind the nibbles come the fifth bits of Q5_0 and Q5_1. */
enum { HEAD_D = 16, HEAD_DM = 32, HEAD_E = 8, NIBBLE_BYTES = 128 };

INLINE v128_t weights_Q4_0(const uint8_t *block, int step, int half, struct constants constants) {
  return nibbles32(block + HEAD_D, step & 3, step >> 2, half, constants);
}

INLINE v128_t weights_Q4_1(const uint8_t *block, int step, int half, struct constants constants) {
  return nibbles32(block + HEAD_DM, step & 3, step >> 2, half, constants);
}

/* Fifth bits: byte 4r + j of rows 0..3, then of rows 4..7; bit `step`. */
INLINE v128_t five_bits(const uint8_t *nibbles, int step, int half, struct constants constants) {
  const v128_t fifth = bit_to_fifth(load(nibbles + NIBBLE_BYTES + 16 * half), step, constants);
  return wasm_v128_or(nibbles32(nibbles, step & 3, step >> 2, half, constants), fifth);
}

INLINE v128_t weights_Q5_0(const uint8_t *block, int step, int half, struct constants constants) {
  return five_bits(block + HEAD_D, step, half, constants);
}

INLINE v128_t weights_Q5_1(const uint8_t *block, int step, int half, struct constants constants) {
  return five_bits(block + HEAD_DM, step, half, constants);
}

INLINE v128_t weights_IQ4_NL(const uint8_t *block, int step, int half, struct constants constants) {
  return lookup(constants.iq4_nl, weights_Q4_0(block, step, half, constants));
}

INLINE v128_t weights_MXFP4(const uint8_t *block, int step, int half, struct constants constants) {
  return lookup(constants.mxfp4, nibbles32(block + HEAD_E, step & 3, step >> 2, half, constants));
}

/* Bytes 4r + j of step i: row r, column 4i + j. */
INLINE v128_t weights_Q8_0(const uint8_t *block, int step, int half, struct constants constants) {
  (void)constants;
  return load(block + HEAD_D + 32 * step + 16 * half);
}

/* 2^(e - 128) of u8 e: an f32 with exponent e - 1, and a subnormal one for e = 0 and 1; the larger of the two patterns is the right one. */
INLINE v128_t exponent_scales(const uint8_t *block, int half, struct constants constants) {
  (void)constants;
  const v128_t all = wasm_u16x8_load8x8(block);
  const v128_t e = half ? wasm_u32x4_extend_high_u16x8(all) : wasm_u32x4_extend_low_u16x8(all);
  const v128_t normal = wasm_i32x4_shl(wasm_i32x4_sub(e, wasm_i32x4_splat(1)), 23);
  return wasm_i32x4_max(normal, wasm_i32x4_shl(wasm_i32x4_add(e, wasm_i32x4_splat(1)), 21));
}

INLINE int quant_of_Q4_0(const uint8_t *block, int k) { return quant_q4_0((const struct block_q4_0 *)block, k); }
INLINE int quant_of_Q4_1(const uint8_t *block, int k) { return quant_q4_1((const struct block_q4_1 *)block, k); }
INLINE int quant_of_Q5_0(const uint8_t *block, int k) { return quant_q5_0((const struct block_q5_0 *)block, k); }
INLINE int quant_of_Q5_1(const uint8_t *block, int k) { return quant_q5_1((const struct block_q5_1 *)block, k); }
INLINE int quant_of_IQ4_NL(const uint8_t *block, int k) { return quant_iq4_nl((const struct block_iq4_nl *)block, k); }
INLINE int quant_of_MXFP4(const uint8_t *block, int k) { return quant_mxfp4((const struct block_mxfp4 *)block, k); }
INLINE int quant_of_Q8_0(const uint8_t *block, int k) { return quant_q8_0((const struct block_q8_0 *)block, k); }

typedef int quant_of(const uint8_t *block, int k);

/* A weight is at most 12 * 2^(e - 128): finite as f32 up to e = 252, and never when e is 255, which stands for NaN. */
static int mxfp4_is_finite(const uint8_t *block) {
  static const int8_t values[16] = {MXFP4_VALUES(0)};
  if (block[0] == 255) return 0;
  for (int k = 0; k < 32 && block[0] > 252; k++) {
    const int value = values[quant_of_MXFP4(block, k)], size = value < 0 ? -value : value;
    if (size >= 4 << (254 - block[0])) return 0;
  }
  return 1;
}

/* Copies a block's scales, of which there are head / 8 bytes, to their row; 0 when one is not finite. */
INLINE int repack_head(uint8_t *panel, const uint8_t *block, int row, const int head) {
  if (head == HEAD_E) {
    panel[row] = block[0];
    return mxfp4_is_finite(block);
  }
  for (int at = 0; at < head / 8; at += 2) {
    if (!f16_is_finite((uint16_t)(block[at] | block[at + 1] << 8))) return 0;
    panel[8 * at + 2 * row] = block[at];
    panel[8 * at + 2 * row + 1] = block[at + 1];
  }
  return 1;
}

/* Writes row `row` of the bytes, or of the nibbles and fifth bits, of one panel block. */
INLINE void repack_quants(uint8_t *nibbles, const uint8_t *block, int row, quant_of *quant, const int bits) {
  if (bits == 8) {
    UNROLL for (int k = 0; k < 32; k++) nibbles[k / 4 * 32 + 4 * row + k % 4] = (uint8_t)quant(block, k);
    return;
  }
  UNROLL for (int i = 0; i < 4; i++) {
    UNROLL for (int j = 0; j < 4; j++) {
      const int low = quant(block, 4 * i + j), high = quant(block, 16 + 4 * i + j);
      nibbles[32 * i + 4 * row + j] = (uint8_t)((low & 15) | (high & 15) << 4);
    }
  }
  if (bits == 4) return;
  UNROLL for (int j = 0; j < 4; j++) {
    int fifths = 0;
    UNROLL for (int step = 0; step < 8; step++) fifths |= quant(block, 4 * step + j) >> 4 << step;
    nibbles[NIBBLE_BYTES + 4 * row + j] = (uint8_t)fifths;
  }
}

/* Missing rows are zero weights: quants of zero with d = 0; MXFP4 has no d of 0, but a nibble of 0 is one. */
INLINE int repack_panel(uint8_t *panel, const uint8_t *rows, int columns, int count, const int bytes, const int panel_bytes,
                        quant_of *quant, const int head, const int bits) {
  const int blocks = columns / 32;
  __builtin_memset(panel, 0, (size_t)blocks * (size_t)panel_bytes);
  for (int row = 0; row < count; row++) {
    uint8_t *to = panel;
    for (int b = 0; b < blocks; b++, rows += bytes, to += panel_bytes) {
      if (!repack_head(to, rows, row, head)) return 0;
      repack_quants(to + head, rows, row, quant, bits);
    }
  }
  return 1;
}

static void widen(struct activation_wide *y, const struct activation_q8x32 *x) {
  for (int j = 0; j < 32; j += 16) {
    const v128_t values = load(x->values + j);
    if (SUMS_IN_I32) {
      wasm_v128_store(y->values + j, wasm_i8x16_max(values, wasm_i8x16_splat(0)));
      wasm_v128_store(y->values + 32 + j, wasm_i8x16_max(wasm_i8x16_neg(values), wasm_i8x16_splat(0)));
    } else {
      const v128_t ordered = wasm_i8x16_shuffle(values, values, 0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15);
      wasm_v128_store(y->values + 2 * j, wasm_i16x8_extend_low_i8x16(ordered));
      wasm_v128_store(y->values + 2 * j + 16, wasm_i16x8_extend_high_i8x16(ordered));
    }
  }
  y->scale = x->scale;
  y->sum = x->sum;
}

/* Records for signed quants. */
static void widen_records(uint8_t *to, const uint8_t *const *records, int columns, int tokens) {
  struct activation_wide *y = (struct activation_wide *)to;
  for (int t = 0; t < tokens; t++) {
    const struct activation_q8x32 *x = (const struct activation_q8x32 *)records[t];
    for (int i = 0; i < columns; i += 32, x++, y++) widen(y, x);
  }
}

/* FORMAT_32(name, bytes before the quants, bits of a stored integer, how one token is multiplied, how scales are read, fields of struct kind32) */
#define FORMAT_32(name, head, bits, how, scales, ...)                                                                                \
  static const struct kind32 kind_##name = {.block_bytes = name##_PANEL_BYTES, __VA_ARGS__};                                         \
  static int repack_##name(uint8_t *panel, const uint8_t *rows, int columns, int count) {                                            \
    return repack_panel(panel, rows, columns, count, name##_BYTES, name##_PANEL_BYTES, quant_of_##name, head, bits);                 \
  }                                                                                                                                  \
  static void unpack_##name(float *y, const uint8_t *panel, int row, int columns, uint8_t *scratch) {                                \
    unpack_panel32(scratch, panel, kind_##name, weights_##name, scales, columns / 32);                                               \
    row32(y, scratch, kind_##name, row, columns / 32);                                                                               \
  }                                                                                                                                  \
  DOT_##how(name, scales)                                                                                                            \
  DECODE_##how(name, scales)                                                                                                         \
  const struct format format_##name = {FORMAT_ROW(name), PREPARE_##how(name) .repack = repack_##name,                             \
                                       .unpack = unpack_##name, .dot = dot_##name, .decode = decode_##name,\
                                       DECODES_ON_##how(name)};

/* Straight from panels for few tokens, unpacked for several. */
#define DOT_PACKED(name, scales, most, prepared)                                                                                     \
  TILE_KERNEL(packed_##name, 1, tile32(out, &panel, kind_##name, weights_##name, scales, packed_scales, x, blocks, 1, 1, 0))            \
  TILE_KERNELS(unpacked_##name, most, prepared)                                                                                      \
  static void dot_##name(float *out, const uint8_t *panel, const uint8_t *const *x, int columns, int tokens, uint8_t *scratch) {     \
    if (tokens < UNPACK_FROM_TOKENS) {                                                                                               \
      for (int t = 0; t < tokens; t++) packed_##name##_1(out + 8 * t, panel, 0, x + t, columns / 32);                                \
      return;                                                                                                                        \
    }                                                                                                                                \
    unpack_panel32(scratch, panel, kind_##name, weights_##name, scales, columns / 32);                \
    RUN_TILES(unpacked_##name, most, out, panel, scratch, x, columns / 32, tokens);                                                  \
  }
#define DOT_MINIMA(name, scales)                                                                                                     \
  DOT_PACKED(name, scales, 8, tile32(out, &unpacked, unpacked_kind32(kind_##name), unpacked_weights, unpacked_scales, unpacked_scales, x, blocks, 1, TILE, 0))
/* Unpacked panels meet prepared records; two panels at a time where sums are i32. */
#define DOT_OFFSET(name, scales) DOT_PREPARED(name, scales, PREPARED_TOKENS)
#define DOT_PREPARED(name, scales, most)                                                                                             \
  static void prepare_##name(uint8_t *to, const uint8_t *const *records, int columns, int tokens) {                                  \
    prepare_tiles32(to, records, kind_##name.offset, columns / 32, tokens);                                                          \
  }                                                                                                                                  \
  DOT_PACKED(name, scales, most, prepared_tile32(out, unpacked, *x, blocks, chain_of(kind_##name), TILE))                            \
  TILE_KERNELS(pair_##name, most, prepared_pair32(out, unpacked, *x, blocks, TILE))                                                  \
  static void dot_pair_##name(float *out, const uint8_t *const *panels, const uint8_t *const *x, int columns, int tokens, uint8_t *scratch) { \
    const int all = columns / 32, slice = slice_of(all, tokens);                                                                     \
    clear_pair(out, tokens);                                                                                                         \
    for (int first = 0; first < all; first += slice) {                                                                               \
      const int blocks = all - first < slice ? all - first : slice;                                                                  \
      const uint8_t *at[PAIR], *records[CHUNK_TOKENS];                                                                               \
      for (int p = 0; p < PAIR; p++) at[p] = panels[p] + first * name##_PANEL_BYTES;                                                 \
      skip_blocks(records, x, first, tokens);                                                                                        \
      unpack_pair32(scratch, at, kind_##name, weights_##name, scales, blocks);                                                       \
      RUN_TILES(pair_##name, most, out, 0, scratch, records, blocks, tokens);                                                        \
    }                                                                                                                                \
  }
#define DOT_NIBBLES DOT_OFFSET
/* Nibbles that are looked up in a table: V8 does that in 128 bits, so it is kept apart from the products, for one token too. */
#define DOT_TABLE(name, scales)                                                                                                      \
  TILE_KERNELS(unpacked_##name, 8, tile32(out, &unpacked, unpacked_kind32(kind_##name), unpacked_weights, unpacked_scales,           \
                                       unpacked_scales, x, blocks, 1, TILE, 0))                                                         \
  static void dot_##name(float *out, const uint8_t *panel, const uint8_t *const *x, int columns, int tokens, uint8_t *scratch) {     \
    unpack_panel32(scratch, panel, kind_##name, weights_##name, scales, columns / 32);                                               \
    RUN_TILES(unpacked_##name, 8, out, panel, scratch, x, columns / 32, tokens);                                                     \
  }
/* Bytes, which need no unpacking. */
#define DOT_BYTES(name, scales)                                                                                                      \
  TILE_KERNELS(tile_##name, 8, tile32(out, &panel, kind_##name, weights_##name, scales, packed_scales, x, blocks, 1, TILE, 0))          \
  static void dot_##name(float *out, const uint8_t *panel, const uint8_t *const *x, int columns, int tokens, uint8_t *scratch) {     \
    (void)scratch;                                                                                                                   \
    RUN_TILES(tile_##name, 8, out, panel, 0, x, columns / 32, tokens);                                                               \
  }

#define PREPARE_MINIMA(name)
#define PREPARE_OFFSET(name) .prepare = prepare_##name, .prepared_bytes = PREPARED32_BYTES, .prepare_from = UNPACK_FROM_TOKENS, .dot_pair = SUMS_IN_I32 ? dot_pair_##name : 0,
#define PREPARE_NIBBLES PREPARE_OFFSET
#define PREPARE_BYTES(name) .prepare = widen_records, .prepared_bytes = sizeof(struct activation_wide), .prepare_from = 1,
#define PREPARE_TABLE PREPARE_BYTES

#define DECODE_ONE(name, scales)                                                                                                     \
  STREAMS_KERNEL(streams_##name, tile32(out, panels, kind_##name, weights_##name, scales, packed_scales, x, blocks, STREAMS, 1, 0))  \
  static void decode_##name(float *out, const uint8_t *const *panels, const uint8_t *x, int columns, uint8_t *scratch) {             \
    (void)scratch;                                                                                                                   \
    streams_##name(out, panels, &x, columns / 32);                                                                                   \
  }                                                                                                                                  \
  STREAMS_KERNEL(further_##name, tile32(out, panels, kind_##name, weights_##name, scales, packed_scales, x, blocks, STREAMS, 1, 1))
#define DECODE_PACKED(name, scales)                                                                                                  \
  DECODE_ONE(name, scales)                                                                                                           \
  static void decode_on_##name(float *out, const uint8_t *const *panels, const uint8_t *const *x, int columns, int tokens) {         \
    for (int t = 0; t < tokens; t++) further_##name(out + 8 * STREAMS * t, panels, x + t, columns / 32);                             \
  }
/* Two tokens at a time where sums are i32. */
#define DECODE_NIBBLES(name, scales)                                                                                                 \
  DECODE_ONE(name, scales)                                                                                                           \
  STREAMS_KERNEL(two_##name, nibbles_by_two32(out, panels, kind_##name, x, blocks))                                                  \
  static void decode_on_##name(float *out, const uint8_t *const *panels, const uint8_t *const *x, int columns, int tokens) {         \
    int t = 0;                                                                                                                       \
    for (; SUMS_IN_I32 && t + STREAM_PAIR <= tokens; t += STREAM_PAIR) two_##name(out + 8 * STREAMS * t, panels, x + t, columns / 32); \
    for (; t < tokens; t++) further_##name(out + 8 * STREAMS * t, panels, x + t, columns / 32);                                      \
  }
#define DECODE_BYTES DECODE_PACKED
#define DECODE_OFFSET DECODE_PACKED
#define DECODE_MINIMA DECODE_PACKED
#define DECODE_TABLE(name, scales)                                                                                                   \
  static void decode_##name(float *out, const uint8_t *const *panels, const uint8_t *x, int columns, uint8_t *scratch) {             \
    for (int p = 0; p < STREAMS; p++) dot_##name(out + 8 * p, panels[p], &x, columns, 1, scratch);                                   \
  }

#define DECODES_ON_BYTES(name) .decode_on = decode_on_##name
#define DECODES_ON_OFFSET DECODES_ON_BYTES
#define DECODES_ON_NIBBLES DECODES_ON_BYTES
#define DECODES_ON_MINIMA DECODES_ON_BYTES
#define DECODES_ON_TABLE(name) .decode_on = 0

FORMAT_32(Q4_0, HEAD_D, 4, NIBBLES, packed_scales, .group = 8, .offset = 8)
FORMAT_32(Q4_1, HEAD_DM, 4, MINIMA, packed_scales, .group = 8, .minima = 16)
FORMAT_32(Q5_0, HEAD_D, 5, OFFSET, packed_scales, .group = 4, .offset = 16)
FORMAT_32(Q5_1, HEAD_DM, 5, MINIMA, packed_scales, .group = 4, .minima = 16)
FORMAT_32(IQ4_NL, HEAD_D, 4, TABLE, packed_scales, .is_signed = 1)
FORMAT_32(MXFP4, HEAD_E, 4, OFFSET, exponent_scales, .group = 4, .offset = 12)
FORMAT_32(Q8_0, HEAD_D, 8, BYTES, packed_scales, .is_signed = 1)
