/*
 * F32, F16 and BF16: f32 activations and sums. Panel: column by column, 8 rows side by side in the file's own type.
 *
 * Each output is two sums, over even and over odd columns, each one multiply-add per column in order, added at the end.
 */
#include "formats.h"
#include "half.h"

enum { TILE_TOKENS = 3, UNPACK_FROM_TOKENS = 4, UNPACKED_BYTES = 32 };

/* f32x4: rows 4 half .. of the column at p. */
typedef v128_t weights_float(const uint8_t *p, int half, struct constants constants);

INLINE v128_t weights_F32(const uint8_t *p, int half, struct constants constants) {
  (void)constants;
  return load(p + 16 * half);
}
INLINE v128_t weights_F16(const uint8_t *p, int half, struct constants constants) { return load_f16x4(p + 8 * half, constants); }
INLINE v128_t weights_BF16(const uint8_t *p, int half, struct constants constants) {
  (void)constants;
  return wasm_i32x4_shl(wasm_i32x4_load16x4(p + 8 * half), 16);
}

/* sum[t][half] += one column. */
INLINE void column_float(v128_t (*sum)[2], const uint8_t *p, weights_float *weights, struct constants constants, const uint8_t **x, int at,
                         const int tokens) {
  v128_t w[2];
  UNROLL for (int half = 0; half < 2; half++) w[half] = weights(p, half, constants);
  UNROLL for (int t = 0; t < tokens; t++) {
    const v128_t v = wasm_v128_load32_splat(x[t] + at);
    UNROLL for (int half = 0; half < 2; half++) sum[t][half] = madd(w[half], v, sum[t][half]);
  }
}

/* out: f32[tokens, 8] for a literal number of tokens. */
INLINE void tile_float(float *out, const uint8_t *panel, const int panel_bytes, weights_float *weights, const uint8_t *const *records, int columns,
                       const int tokens) {
  const struct constants constants = read_constants();
  const uint8_t *x[TILE_TOKENS];
  v128_t even[TILE_TOKENS][2], odd[TILE_TOKENS][2];
  UNROLL for (int t = 0; t < tokens; t++) {
    x[t] = records[t];
    even[t][0] = even[t][1] = odd[t][0] = odd[t][1] = wasm_f32x4_splat(0);
  }
  int c = 0;
  for (; c + 2 <= columns; c += 2, panel += 2 * panel_bytes) {
    column_float(even, panel, weights, constants, x, 0, tokens);
    column_float(odd, panel + panel_bytes, weights, constants, x, 4, tokens);
    UNROLL for (int t = 0; t < tokens; t++) x[t] += 8;
  }
  if (c < columns) column_float(even, panel, weights, constants, x, 0, tokens);
  UNROLL for (int t = 0; t < tokens; t++) {
    wasm_v128_store(out + 8 * t, wasm_f32x4_add(even[t][0], odd[t][0]));
    wasm_v128_store(out + 8 * t + 4, wasm_f32x4_add(even[t][1], odd[t][1]));
  }
}

INLINE void tiles_float(float *out, const uint8_t *panel, const int panel_bytes, weights_float *weights, const uint8_t *const *x, int columns,
                        int tokens) {
  int t = 0;
  for (; t + 3 <= tokens; t += 3) tile_float(out + 8 * t, panel, panel_bytes, weights, x + t, columns, 3);
  if (tokens - t == 2) tile_float(out + 8 * t, panel, panel_bytes, weights, x + t, columns, 2);
  if (tokens - t == 1) tile_float(out + 8 * t, panel, panel_bytes, weights, x + t, columns, 1);
}

/* Converts a panel to F32's layout. */
INLINE void unpack_panel(uint8_t *unpacked, const uint8_t *panel, const int panel_bytes, weights_float *weights, int columns) {
  const struct constants constants = read_constants();
  for (int c = 0; c < columns; c++, panel += panel_bytes, unpacked += UNPACKED_BYTES) {
    UNROLL for (int half = 0; half < 2; half++) wasm_v128_store(unpacked + 16 * half, weights(panel, half, constants));
  }
}

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
  static int repack_##name(uint8_t *panel, const uint8_t *rows, int columns, int count) {                                           \
    return repack_float(panel, rows, columns, count, name##_BYTES, exponent);                                                       \
  }                                                                                                                                  \
  static void unpack_##name(float *y, const uint8_t *panel, int row, int columns, uint8_t *scratch) {                               \
    const struct constants constants = read_constants();                                                                             \
    float *column = (float *)scratch;                                                                                                \
    for (int c = 0; c < columns; c++, panel += name##_PANEL_BYTES) {                                                                 \
      UNROLL for (int half = 0; half < 2; half++) wasm_v128_store(column + 4 * half, weights_##name(panel, half, constants));                   \
      y[c] = column[row];                                                                                                            \
    }                                                                                                                                \
  }                                                                                                                                  \
  static void dot_##name(float *out, const uint8_t *panel, const uint8_t *const *x, int columns, int tokens, uint8_t *scratch) {    \
    if (tokens < UNPACK_FROM_TOKENS || name##_PANEL_BYTES == UNPACKED_BYTES) {                                                       \
      tiles_float(out, panel, name##_PANEL_BYTES, weights_##name, x, columns, tokens);                                              \
      return;                                                                                                                        \
    }                                                                                                                                \
    unpack_panel(scratch, panel, name##_PANEL_BYTES, weights_##name, columns);                                                      \
    tiles_float(out, scratch, UNPACKED_BYTES, weights_F32, x, columns, tokens);                                                     \
  }                                                                                                                                  \
  const struct format format_##name = {FORMAT_ROW(name), .repack = repack_##name, .unpack = unpack_##name, .dot = dot_##name};

FORMAT_FLOAT(F32, 0x7f800000)
FORMAT_FLOAT(F16, 0x7c00)
FORMAT_FLOAT(BF16, 0x7f80)
