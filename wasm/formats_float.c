/*
 * F32, F16 and BF16: f32 activations and sums. Panel: column by column, 8 rows side by side in the file's own type.
 *
 * Each output is two sums, over even and over odd columns, each one multiply-add per column in order, added at the end.
 */
#include "formats.h"
#include "half.h"
#include "tiles.h"

enum { UNPACKED_BYTES = 32 };

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

FORMAT_FLOAT(F32, 0x7f800000)
FORMAT_FLOAT(F16, 0x7c00)
FORMAT_FLOAT(BF16, 0x7f80)
