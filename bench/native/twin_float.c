/* F32, F16 and BF16: panels column by column, 8 rows side by side; f32 activations and sums. */
#include "twin.h"

typedef __m256 weights_at(const uint8_t *column);

INLINE __m256 weights_F32(const uint8_t *column) { return _mm256_loadu_ps((const float *)column); }
INLINE __m256 weights_F16(const uint8_t *column) { return load_f16x8(column); }
INLINE __m256 weights_BF16(const uint8_t *column) { return load_bf16x8(column); }

/* out: f32[tokens, 8]; `chains` columns are summed apart, so that one multiply-add need not wait for the last. */
INLINE void tile(float *out, const uint8_t *panel, const int panel_bytes, weights_at *weights, const uint8_t *const *x, int columns, const int tokens,
                 const int chains) {
  __m256 sum[TILE_TOKENS][8];
  UNROLL for (int t = 0; t < tokens; t++) UNROLL for (int i = 0; i < chains; i++) sum[t][i] = _mm256_setzero_ps();
  int c = 0;
  for (; c + chains <= columns; c += chains) {
    UNROLL for (int i = 0; i < chains; i++) {
      const __m256 w = weights(panel + (size_t)(c + i) * (size_t)panel_bytes);
      UNROLL for (int t = 0; t < tokens; t++) sum[t][i] = _mm256_fmadd_ps(w, _mm256_set1_ps(((const float *)x[t])[c + i]), sum[t][i]);
    }
  }
  for (; c < columns; c++) {
    const __m256 w = weights(panel + (size_t)c * (size_t)panel_bytes);
    UNROLL for (int t = 0; t < tokens; t++) sum[t][0] = _mm256_fmadd_ps(w, _mm256_set1_ps(((const float *)x[t])[c]), sum[t][0]);
  }
  UNROLL for (int t = 0; t < tokens; t++) {
    UNROLL for (int i = 1; i < chains; i++) sum[t][0] = _mm256_add_ps(sum[t][0], sum[t][i]);
    _mm256_storeu_ps(out + 8 * t, sum[t][0]);
  }
}

INLINE void repack(uint8_t *panel, const uint8_t *rows, int columns, const int bytes) {
  for (int row = 0; row < PANEL_ROWS; row++) {
    for (int c = 0; c < columns; c++, rows += bytes) __builtin_memcpy(panel + (size_t)(8 * c + row) * (size_t)bytes, rows, (size_t)bytes);
  }
}

#define FORMAT(name, bytes)                                                                                                        \
  static void repack_##name(uint8_t *panel, const uint8_t *rows, int columns) { repack(panel, rows, columns, bytes); }             \
  static void dot_##name(float *out, const uint8_t *panel, const uint8_t *const *x, int columns, int tokens, uint8_t *scratch) {   \
    (void)scratch;                                                                                                                 \
    RUN_TILES(tokens, TILE, name);                                                                                                 \
  }                                                                                                                                \
  const struct format FORMAT_##name = {#name, 1, bytes, 8 * bytes, ACTIVATION_F32, repack_##name, dot_##name};
#define TILE(T, name) tile(out + 8 * t, panel, FORMAT_##name.panel_bytes, weights_##name, x + t, columns, T, T == 1 ? 8 : T == 2 ? 4 : 2)

FORMAT(F32, 4)
FORMAT(F16, 2)
FORMAT(BF16, 2)
