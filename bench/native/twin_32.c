/*
 * Blocks of 32 columns. Panel block: f16 d[8], then 4 vectors of nibbles (vector i, byte 4r + j: row r, columns 4i + j and 16 + 4i + j), for Q5_0 32 bytes of
 * fifth bits (byte 4r + j, bit s: column 4s + j); for Q8_0 8 vectors of bytes. Unpacked block: f32 d[8], 8 vectors of bytes: step s, byte 4r + j:
 * column 4s + j.
 */
#include "../../wasm/blocks.h"
#include "twin.h"

enum { UNPACKED_BYTES = 32 + 256 };

typedef __m256i weights_at(const uint8_t *block, int step);
typedef __m256 scales_at(const uint8_t *block);

INLINE __m256 packed_scales(const uint8_t *block) { return load_f16x8(block); }
INLINE __m256 unpacked_scales(const uint8_t *block) { return _mm256_loadu_ps((const float *)block); }
INLINE __m256i unpacked_weights(const uint8_t *block, int step) { return load(block + 32 + 32 * step); }

INLINE __m256i weights_Q4_0(const uint8_t *block, int step) { return nibbles(block + 16 + 32 * (step & 3), step >> 2); }
INLINE __m256i weights_Q5_0(const uint8_t *block, int step) {
  return _mm256_or_si256(weights_Q4_0(block, step), to_fourth(load(block + 144), step, 0x10));
}
INLINE __m256i weights_Q8_0(const uint8_t *block, int step) { return load(block + 16 + 32 * step); }
INLINE __m256i weights_IQ4_NL(const uint8_t *block, int step) {
  const __m256i table = _mm256_broadcastsi128_si256(_mm_setr_epi8(IQ4_NL_VALUES));
  return _mm256_shuffle_epi8(table, weights_Q4_0(block, step));
}

/* What differs between formats; constants all. */
struct kind {
  int panel_bytes;
  int is_signed; /* weights have a sign of their own: |w| times x with the sign of w; else weight = d (quant - offset) */
  int group;     /* neighbouring steps that may be summed in i16 */
  int offset;
};

INLINE __m256i products(__m256i w, __m256i x, const int is_signed) {
  return is_signed ? _mm256_maddubs_epi16(_mm256_sign_epi8(w, w), _mm256_sign_epi8(x, w)) : _mm256_maddubs_epi16(w, x);
}

/* out: f32[tokens, 8] for a literal number of tokens. */
INLINE void tile(float *out, const uint8_t *block, const int block_bytes, weights_at *weights, scales_at *scales, const uint8_t *const *x, int blocks,
                 const int tokens, const struct kind kind) {
  const struct record_32 *record[TILE_TOKENS];
  __m256 total[TILE_TOKENS];
  UNROLL for (int t = 0; t < tokens; t++) {
    record[t] = (const struct record_32 *)x[t];
    total[t] = _mm256_setzero_ps();
  }
  for (int b = 0; b < blocks; b++, block += block_bytes) {
    __m256i part[TILE_TOKENS], dot[TILE_TOKENS];
    UNROLL for (int n = 0; n < 8; n++) {
      const int step = (n & 1) * 4 + n / 2; /* low and high nibbles of a vector together */
      const __m256i w = weights(block, step);
      UNROLL for (int t = 0; t < tokens; t++) {
        const __m256i product = products(w, splat_32(record[t]->values + 4 * step), kind.is_signed);
        part[t] = n % kind.group == 0 ? product : _mm256_add_epi16(part[t], product);
        if ((n + 1) % kind.group != 0) continue;
        const __m256i sum = _mm256_madd_epi16(part[t], _mm256_set1_epi16(1));
        dot[t] = n < kind.group ? sum : _mm256_add_epi32(dot[t], sum);
      }
    }
    const __m256 d = scales(block);
    UNROLL for (int t = 0; t < tokens; t++) {
      const __m256i sum = kind.offset ? _mm256_sub_epi32(dot[t], _mm256_set1_epi32(kind.offset * record[t]->sum)) : dot[t];
      total[t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), _mm256_mul_ps(d, _mm256_set1_ps(record[t]->scale)), total[t]);
      record[t]++;
    }
  }
  UNROLL for (int t = 0; t < tokens; t++) _mm256_storeu_ps(out + 8 * t, total[t]);
}

INLINE void unpack(uint8_t *unpacked, const uint8_t *block, const int block_bytes, weights_at *weights, int blocks) {
  for (int b = 0; b < blocks; b++, block += block_bytes, unpacked += UNPACKED_BYTES) {
    _mm256_storeu_ps((float *)unpacked, packed_scales(block));
    UNROLL for (int step = 0; step < 8; step++) store(unpacked + 32 + 32 * step, weights(block, step));
  }
}

typedef int quant_of(const void *block, int k);
INLINE int quant_of_Q4_0(const void *block, int k) { return quant_q4_0(block, k); }
INLINE int quant_of_Q5_0(const void *block, int k) { return quant_q5_0(block, k); }
INLINE int quant_of_Q8_0(const void *block, int k) { return quant_q8_0(block, k); }
INLINE int quant_of_IQ4_NL(const void *block, int k) { return quant_iq4_nl(block, k); }

INLINE void repack(uint8_t *panel, const uint8_t *rows, int columns, const int bytes, const int panel_bytes, const int bits, quant_of *quant) {
  const int blocks = columns / 32;
  __builtin_memset(panel, 0, (size_t)blocks * (size_t)panel_bytes);
  for (int row = 0; row < PANEL_ROWS; row++) {
    for (int b = 0; b < blocks; b++, rows += bytes) {
      uint8_t *to = panel + (size_t)b * (size_t)panel_bytes;
      __builtin_memcpy(to + 2 * row, rows, 2); /* every block begins with its scale */
      for (int k = 0; k < 32; k++) {
        const int q = quant(rows, k), at = 4 * row + k % 4;
        if (bits == 8) {
          to[16 + k / 4 * 32 + at] = (uint8_t)q;
          continue;
        }
        to[16 + k % 16 / 4 * 32 + at] |= (uint8_t)((q & 15) << (k < 16 ? 0 : 4));
        if (bits == 5) to[144 + at] |= (uint8_t)(q >> 4 << k / 4);
      }
    }
  }
}

/* FORMAT(name, bytes per file block, bits per weight, fields of struct kind) */
#define FORMAT(name, file_bytes, bits, ...)                                                                                            \
  static const struct kind kind_##name = {__VA_ARGS__};                                                                                \
  static void repack_##name(uint8_t *panel, const uint8_t *rows, int columns) {                                                        \
    repack(panel, rows, columns, file_bytes, kind_##name.panel_bytes, bits, quant_of_##name);                                          \
  }                                                                                                                                    \
  static void dot_##name(float *out, const uint8_t *panel, const uint8_t *const *x, int columns, int tokens, uint8_t *scratch) {       \
    const int blocks = columns / 32;                                                                                                   \
    if (tokens >= UNPACK_FROM_TOKENS) unpack(scratch, panel, kind_##name.panel_bytes, weights_##name, blocks);                         \
    if (tokens >= UNPACK_FROM_TOKENS) RUN_TILES(tokens, UNPACKED, kind_##name);                                                        \
    else RUN_TILES(tokens, PACKED, name);                                                                                              \
  }                                                                                                                                    \
  const struct format FORMAT_##name = {#name, 32, file_bytes, kind_##name.panel_bytes, ACTIVATION_32, repack_##name, dot_##name};
#define UNPACKED(T, kind) tile(out + 8 * t, scratch, UNPACKED_BYTES, unpacked_weights, unpacked_scales, x + t, blocks, T, kind)
#define PACKED(T, name) tile(out + 8 * t, panel, kind_##name.panel_bytes, weights_##name, packed_scales, x + t, blocks, T, kind_##name)

FORMAT(Q4_0, 18, 4, .panel_bytes = 144, .group = 8, .offset = 8)
FORMAT(Q5_0, 22, 5, .panel_bytes = 176, .group = 4, .offset = 16)
FORMAT(Q8_0, 34, 8, .panel_bytes = 272, .group = 1, .is_signed = 1)
FORMAT(IQ4_NL, 18, 4, .panel_bytes = 144, .group = 1, .is_signed = 1)
