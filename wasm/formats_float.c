/*
 * F32, F16 and BF16: f32 activations and sums. Panel of F32 and BF16: column by column, 8 rows side by side in the file's own type; F16's is below.
 *
 * Each output is two sums, over even and over odd columns, each one multiply-add per column in order, added at the end.
 */
#include "blocks.h"
#include "formats.h"
#include "kernels.h"
#include "half.h"
#include "tiles.h"

enum { UNPACKED_BYTES = 32 };

/* f32x4: rows 4 half .. of the column at p. */
typedef v128_t weights_float(const uint8_t *p, int half, struct constants constants);

INLINE v128_t weights_F32(const uint8_t *p, int half, struct constants constants) {
  (void)constants;
  return load(p + 16 * half);
}
INLINE v128_t weights_BF16(const uint8_t *p, int half, struct constants constants) {
  (void)constants;
  return wasm_i32x4_shl(wasm_i32x4_load16x4(p + 8 * half), 16);
}

/* sum[i][half] += one column, i = panel * tokens + token. */
INLINE void column_float(v128_t (*sum)[2], const uint8_t *const *panel, int offset, weights_float *weights, struct constants constants,
                         const uint8_t *const *x, int at, const int panels, const int tokens) {
  UNROLL for (int i = 0; i < panels * tokens; i++) {
    const v128_t v = wasm_v128_load32_splat(x[i % tokens] + at);
    UNROLL for (int half = 0; half < 2; half++) sum[i][half] = madd(weights(panel[i / tokens] + offset, half, constants), v, sum[i][half]);
  }
}

/* out: f32[panels, tokens, 8] for literal numbers of panels and tokens, of which one is 1. */
INLINE void tile_float(float *out, const uint8_t *const *panels_at, const int panel_bytes, weights_float *weights, const uint8_t *const *records,
                       int columns, const int panels, const int tokens) {
  const struct constants constants = read_constants();
  const uint8_t *panel[TILE_SIZE], *x[TILE_SIZE];
  v128_t even[TILE_SIZE][2], odd[TILE_SIZE][2];
  UNROLL for (int p = 0; p < panels; p++) panel[p] = panels_at[p];
  UNROLL for (int t = 0; t < tokens; t++) x[t] = records[t];
  UNROLL for (int i = 0; i < panels * tokens; i++) even[i][0] = even[i][1] = odd[i][0] = odd[i][1] = wasm_f32x4_splat(0);
  for (int c = 0; c + 2 <= columns; c += 2) {
    column_float(even, panel, 0, weights, constants, x, 0, panels, tokens);
    column_float(odd, panel, panel_bytes, weights, constants, x, 4, panels, tokens);
    UNROLL for (int p = 0; p < panels; p++) panel[p] += 2 * panel_bytes;
    UNROLL for (int t = 0; t < tokens; t++) x[t] += 8;
  }
  if (columns % 2 != 0) column_float(even, panel, 0, weights, constants, x, 0, panels, tokens);
  UNROLL for (int i = 0; i < panels * tokens; i++) {
    UNROLL for (int half = 0; half < 2; half++) even[i][half] = wasm_f32x4_add(even[i][half], odd[i][half]);
  }
  store_tile(out, even, panels * tokens);
}

/* Converts a panel to F32's layout. */
INLINE void unpack_panel(uint8_t *unpacked, const uint8_t *panel, const int panel_bytes, weights_float *weights, int columns) {
  const struct constants constants = read_constants();
  for (int c = 0; c < columns; c++, panel += panel_bytes, unpacked += UNPACKED_BYTES) {
    store_pair(unpacked, weights(panel, 0, constants), weights(panel, 1, constants));
  }
}

/* The same for every format of this family: F32's panels are as if unpacked. */
TILE_KERNELS(unpacked, 6, tile_float(out, &unpacked, UNPACKED_BYTES, weights_F32, x, blocks, 1, TILE))

/* Transposes file rows to a panel of elements of 2 or 4 bytes; infinite and NaN are those whose exponent bits are all ones. */
INLINE int repack_float(uint8_t *panel, const uint8_t *rows, int columns, int count, const int bytes, const uint32_t exponent) {
  __builtin_memset(panel, 0, (size_t)columns * 8 * (size_t)bytes);
  for (int row = 0; row < count; row++) {
    uint8_t *to = panel + row * bytes;
    for (int c = 0; c < columns; c++, rows += bytes, to += 8 * bytes) {
      uint32_t bits = 0;
      __builtin_memcpy(&bits, rows, (size_t)bytes);
      if ((bits & exponent) == exponent) return 0;
      __builtin_memcpy(to, &bits, (size_t)bytes);
    }
  }
  return 1;
}

/* FORMAT_FLOAT(name, exponent bits) */
#define FORMAT_FLOAT(name, exponent)                                                                                                 \
  static int repack_##name(uint8_t *panel, const uint8_t *rows, int columns, int count) {                                            \
    return repack_float(panel, rows, columns, count, name##_BYTES, exponent);                                                        \
  }                                                                                                                                  \
  static void unpack_##name(float *y, const uint8_t *panel, int row, int columns, uint8_t *scratch) {                                \
    const struct constants constants = read_constants();                                                                             \
    float *column = (float *)scratch;                                                                                                \
    for (int c = 0; c < columns; c++, panel += name##_PANEL_BYTES) {                                                                 \
      UNROLL for (int half = 0; half < 2; half++) wasm_v128_store(column + 4 * half, weights_##name(panel, half, constants));        \
      y[c] = column[row];                                                                                                            \
    }                                                                                                                                \
  }                                                                                                                                  \
  TILE_KERNEL(packed_##name, 1, tile_float(out, &panel, name##_PANEL_BYTES, weights_##name, x, blocks, 1, 1))                        \
  STREAMS_KERNEL(streams_##name, tile_float(out, panels, name##_PANEL_BYTES, weights_##name, x, blocks, STREAMS, 1))                 \
  static void decode_##name(float *out, const uint8_t *const *panels, const uint8_t *x, int columns, uint8_t *scratch) {             \
    (void)scratch;                                                                                                                   \
    streams_##name(out, panels, &x, columns);                                                                                        \
  }                                                                                                                                  \
  static void dot_##name(float *out, const uint8_t *panel, const uint8_t *const *x, int columns, int tokens, uint8_t *scratch) {     \
    if (tokens < UNPACK_FROM_TOKENS) {                                                                                               \
      for (int t = 0; t < tokens; t++) packed_##name##_1(out + 8 * t, panel, 0, x + t, columns);                                     \
      return;                                                                                                                        \
    }                                                                                                                                \
    if (name##_PANEL_BYTES != UNPACKED_BYTES) unpack_panel(scratch, panel, name##_PANEL_BYTES, weights_##name, columns);             \
    RUN_TILES(unpacked, 6, out, panel, name##_PANEL_BYTES == UNPACKED_BYTES ? panel : scratch, x, columns, tokens);                  \
  }                                                                                                                                  \
  const struct format format_##name = {                                                                                              \
      FORMAT_ROW(name), .repack = repack_##name, .unpack = unpack_##name, .dot = dot_##name, .decode = decode_##name};

/*
 * F16 panel: 32 bytes per two columns, u16 at 4r + 2j = row r, column 2i + j (an odd last column has a zero beside it), then f32 scale[8].
 *
 * A code is an f16 whose exponent was raised so that its row's largest weight has 31: f16's subnormal numbers become normal ones, in all rows whose
 * weights span less than 2^31, and widening is two operations. They leave exponent and mantissa where f32 has them, without the difference of the biases:
 * a weight times a power of two near 2^-96, exactly. x is multiplied by 2^48 for that, and scale takes both back.
 */
enum { CODE_TOP = 31, X_SHIFT = 48, F32_BIAS = 127, F16_BIAS = 15, F16_LEAST = -24 };

INLINE v128_t even_f16(v128_t pairs, struct constants constants) {
  return wasm_v128_and(wasm_i32x4_dot_i16x8(pairs, constants.f16_even), constants.f16_bits);
}
INLINE v128_t odd_f16(v128_t pairs, struct constants constants) { return wasm_v128_and(wasm_i32x4_shr(pairs, 3), constants.f16_bits); }

INLINE int pairs_of(int columns) { return (columns + 1) / 2; }

/* out: f32[panels, 8] of one prepared record, for a literal number of panels; sums in tile_float's order. */
INLINE void tile_f16(float *out, const uint8_t *const *panels_at, const uint8_t *x, int columns, const int panels) {
  const struct constants constants = read_constants();
  const uint8_t *panel[STREAMS];
  v128_t even[STREAMS][2], odd[STREAMS][2];
  UNROLL for (int p = 0; p < panels; p++) panel[p] = panels_at[p];
  UNROLL for (int p = 0; p < panels; p++) even[p][0] = even[p][1] = odd[p][0] = odd[p][1] = wasm_f32x4_splat(0);
  for (int i = 0; i < pairs_of(columns); i++, x += 8) {
    const v128_t v = wasm_v128_load32_splat(x), v2 = wasm_v128_load32_splat(x + 4);
    UNROLL for (int p = 0; p < panels; p++) {
      UNROLL for (int half = 0; half < 2; half++) {
        const v128_t codes = load(panel[p] + 16 * half);
        even[p][half] = madd(even_f16(codes, constants), v, even[p][half]);
        odd[p][half] = madd(odd_f16(codes, constants), v2, odd[p][half]);
      }
      panel[p] += 32;
    }
  }
  UNROLL for (int p = 0; p < panels; p++) {
    UNROLL for (int half = 0; half < 2; half++) {
      even[p][half] = wasm_f32x4_mul(wasm_f32x4_add(even[p][half], odd[p][half]), load(panel[p] + 16 * half));
    }
  }
  store_tile(out, even, panels);
}

/* Converts a panel to F32's layout. */
static void unpack_panel_F16(uint8_t *unpacked, const uint8_t *panel, int columns) {
  const struct constants constants = read_constants();
  const uint8_t *tail = panel + 32 * pairs_of(columns);
  v128_t scale[2];
  UNROLL for (int half = 0; half < 2; half++) scale[half] = wasm_f32x4_mul(load(tail + 16 * half), constants.f16_up);
  for (; panel < tail; panel += 32, unpacked += 2 * UNPACKED_BYTES) {
    v128_t even[2], odd[2];
    UNROLL for (int half = 0; half < 2; half++) {
      const v128_t codes = load(panel + 16 * half);
      even[half] = wasm_f32x4_mul(even_f16(codes, constants), scale[half]);
      odd[half] = wasm_f32x4_mul(odd_f16(codes, constants), scale[half]);
    }
    store_pair(unpacked, even[0], even[1]);
    store_pair(unpacked + UNPACKED_BYTES, odd[0], odd[1]);
  }
}

static void unpack_F16(float *y, const uint8_t *panel, int row, int columns, uint8_t *scratch) {
  unpack_panel_F16(scratch, panel, columns);
  for (int c = 0; c < columns; c++) y[c] = ((const float *)scratch)[PANEL_ROWS * c + row];
}

/* The largest magnitude of a row, as f16 bits. */
static int largest_f16(const uint8_t *row, int columns) {
  int most = 0;
  for (int c = 0; c < columns; c++) {
    uint16_t bits;
    __builtin_memcpy(&bits, row + 2 * c, sizeof(bits));
    const int magnitude = bits & 0x7fff;
    most = magnitude > most ? magnitude : most;
  }
  return most;
}

/* The exponent of a finite f16's highest bit; 0 for zero. */
static int exponent_of_f16(int magnitude) {
  if (magnitude >> 10 != 0) return (magnitude >> 10) - F16_BIAS;
  return magnitude ? 31 - __builtin_clz((unsigned)magnitude) + F16_LEAST : 0;
}

/*
 * Codes of eight finite f16: their f32 times `down`, without the bits that are the same in all. What is left of f32's 8 bits of exponent are the code's 5;
 * the least of a row that spans more become subnormal f32, which no bit is lost of: f16's least bit is 2^-24, that of a code at least 2^-25.
 */
INLINE v128_t codes_f16(const uint8_t *halves, v128_t down, struct constants constants) {
  v128_t code[2];
  UNROLL for (int i = 0; i < 2; i++) {
    const v128_t bits = wasm_f32x4_mul(load_f16x4(halves + 8 * i, constants), down);
    const v128_t sign = wasm_v128_and(wasm_u32x4_shr(bits, 16), wasm_i32x4_splat(0x8000));
    code[i] = wasm_v128_or(sign, wasm_v128_and(wasm_u32x4_shr(bits, 13), wasm_i32x4_splat(0x7fff)));
  }
  return wasm_u16x8_narrow_i32x4(code[0], code[1]);
}

/* 2^exponent, which must be a normal f32. */
static float power_of_two(int exponent) {
  const uint32_t bits = (uint32_t)(F32_BIAS + exponent) << 23;
  float power;
  __builtin_memcpy(&power, &bits, sizeof(power));
  return power;
}

static int repack_F16(uint8_t *panel, const uint8_t *rows, int columns, int count) {
  const struct constants constants = read_constants();
  float *scales = (float *)(panel + 32 * pairs_of(columns));
  __builtin_memset(panel, 0, (size_t)columns * F16_PANEL_BYTES + F16_TAIL_BYTES);
  for (int row = 0; row < count; row++, rows += 2 * columns) {
    const int most = largest_f16(rows, columns);
    if (!f16_is_finite((uint16_t)most)) return 0;
    const int shift = F32_BIAS - CODE_TOP + exponent_of_f16(most);
    const v128_t down = wasm_f32x4_splat(power_of_two(-shift));
    scales[row] = power_of_two(shift - X_SHIFT);
    uint8_t *to = panel + 4 * row;
    int c = 0;
    for (; c + 8 <= columns; c += 8, to += 4 * 32) {
      const v128_t codes = codes_f16(rows + 2 * c, down, constants);
      wasm_v128_store32_lane(to, codes, 0);
      wasm_v128_store32_lane(to + 32, codes, 1);
      wasm_v128_store32_lane(to + 64, codes, 2);
      wasm_v128_store32_lane(to + 96, codes, 3);
    }
    uint8_t halves[16] = {0}, codes[16];
    __builtin_memcpy(halves, rows + 2 * c, (size_t)(columns - c) * 2);
    wasm_v128_store(codes, codes_f16(halves, down, constants));
    for (int i = 0; i < pairs_of(columns - c); i++) __builtin_memcpy(to + 32 * i, codes + 4 * i, 4);
  }
  return 1;
}

/* x times 2^48, with a zero behind an odd last column. */
static void prepare_F16(uint8_t *to, const uint8_t *const *records, int columns, int tokens) {
  const struct constants constants = read_constants();
  for (int t = 0; t < tokens; t++, to += (size_t)columns * 8) {
    int c = 0;
    for (; c + 4 <= columns; c += 4) wasm_v128_store(to + 4 * c, wasm_f32x4_mul(load(records[t] + 4 * c), constants.f16_up));
    for (; c < columns; c++) ((float *)to)[c] = ((const float *)records[t])[c] * 0x1p48f;
    if (columns % 2 != 0) ((float *)to)[columns] = 0;
  }
}

static __attribute__((noinline)) void packed_F16(float *out, const uint8_t *panel, const uint8_t *x, int columns) {
  tile_f16(out, &panel, x, columns, 1);
}
static void decode_F16(float *out, const uint8_t *const *panels, const uint8_t *x, int columns, uint8_t *scratch) {
  (void)scratch;
  tile_f16(out, panels, x, columns, STREAMS);
}
static void dot_F16(float *out, const uint8_t *panel, const uint8_t *const *x, int columns, int tokens, uint8_t *scratch) {
  if (tokens < UNPACK_FROM_TOKENS) {
    for (int t = 0; t < tokens; t++) packed_F16(out + 8 * t, panel, x[t], columns);
    return;
  }
  unpack_panel_F16(scratch, panel, columns);
  RUN_TILES(unpacked, 6, out, panel, scratch, x, columns, tokens);
}
const struct format format_F16 = {
    FORMAT_ROW(F16), .prepare = prepare_F16, .prepare_from = 1, .prepare_most = STREAM_TOKENS, .prepared_bytes = 8,
    .repack = repack_F16, .unpack = unpack_F16, .dot = dot_F16, .decode = decode_F16};

FORMAT_FLOAT(F32, 0x7f800000)
FORMAT_FLOAT(BF16, 0x7f80)
