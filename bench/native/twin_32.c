/*
 * Blocks of 32 columns. Panel block: f16 d[8] (bf16 for MXFP4), then 4 vectors of nibbles (vector i, byte 4r + j: row r, columns 4i + j and 16 + 4i + j), for
 * 5 bits 32 bytes of fifth bits (byte 4r + j, bit s: column 4s + j), for formats with minima f16 m[8]; for Q8_0 8 vectors of bytes. Unpacked block:
 * f32 d[8], 8 vectors of bytes (step s, byte 4r + j: column 4s + j), f32 m[8] where there are minima.
 */
#include "../../wasm/blocks.h"
#include "twin.h"

enum { UNPACKED_MINIMA = 32 + 256 };

typedef __m256i weights_at(const uint8_t *block, int step);
INLINE __m256i unpacked_weights(const uint8_t *block, int step) { return load(block + 32 + 32 * step); }

INLINE __m256i weights_Q4_0(const uint8_t *block, int step) { return nibbles(block + 16 + 32 * (step & 3), step >> 2); }
INLINE __m256i weights_Q5_0(const uint8_t *block, int step) {
  return _mm256_or_si256(weights_Q4_0(block, step), move_bits(load(block + 144), step, 4, 0x10));
}
INLINE __m256i weights_Q8_0(const uint8_t *block, int step) { return load(block + 16 + 32 * step); }
INLINE __m256i weights_IQ4_NL(const uint8_t *block, int step) {
  return lookup(_mm_setr_epi8(IQ4_NL_VALUES(0)), weights_Q4_0(block, step));
}
INLINE __m256i weights_MXFP4(const uint8_t *block, int step) { return lookup(_mm_setr_epi8(MXFP4_VALUES(12)), weights_Q4_0(block, step)); }
#define weights_Q4_1 weights_Q4_0
#define weights_Q5_1 weights_Q5_0

/* What differs between formats; constants all. */
struct kind {
  int panel_bytes;
  int is_signed; /* weights are signed bytes; else weight = d (quant - offset) + m */
  int group;     /* neighbouring steps that may be summed in i16 */
  int offset;
  int minima; /* where m is, or 0 */
  int bf16;   /* scales are bf16 */
};

INLINE __m256 scales(const uint8_t *block, const int is_packed, const struct kind kind) {
  if (!is_packed) return _mm256_loadu_ps((const float *)block);
  return kind.bf16 ? load_bf16x8(block) : load_f16x8(block);
}
INLINE __m256 minima(const uint8_t *block, const int is_packed, const struct kind kind) {
  return is_packed ? load_f16x8(block + kind.minima) : _mm256_loadu_ps((const float *)(block + UNPACKED_MINIMA));
}
INLINE int unpacked_bytes(const struct kind kind) { return kind.minima ? UNPACKED_MINIMA + 32 : UNPACKED_MINIMA; }

/* out: f32[tokens, 8] for a literal number of tokens. */
INLINE void tile(float *out, const uint8_t *block, weights_at *weights, const int is_packed, const uint8_t *const *x, int blocks, const int tokens,
                 const struct kind kind) {
  const int block_bytes = is_packed ? kind.panel_bytes : unpacked_bytes(kind);
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
    const __m256 d = scales(block, is_packed, kind), m = kind.minima ? minima(block, is_packed, kind) : d;
    UNROLL for (int t = 0; t < tokens; t++) {
      const __m256i sum = kind.offset ? _mm256_sub_epi32(dot[t], _mm256_set1_epi32(kind.offset * record[t]->sum)) : dot[t];
      total[t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), _mm256_mul_ps(d, _mm256_set1_ps(record[t]->scale)), total[t]);
      if (kind.minima) total[t] = _mm256_fmadd_ps(m, _mm256_set1_ps(record[t]->scale * (float)record[t]->sum), total[t]);
      record[t]++;
    }
  }
  UNROLL for (int t = 0; t < tokens; t++) _mm256_storeu_ps(out + 8 * t, total[t]);
}

INLINE void unpack(uint8_t *unpacked, const uint8_t *block, weights_at *weights, int blocks, const struct kind kind) {
  for (int b = 0; b < blocks; b++, block += kind.panel_bytes, unpacked += unpacked_bytes(kind)) {
    _mm256_storeu_ps((float *)unpacked, scales(block, 1, kind));
    if (kind.minima) _mm256_storeu_ps((float *)(unpacked + UNPACKED_MINIMA), minima(block, 1, kind));
    UNROLL for (int step = 0; step < 8; step++) store(unpacked + 32 + 32 * step, weights(block, step));
  }
}

typedef int quant_of(const void *block, int k);
INLINE int quant_of_Q4_0(const void *block, int k) { return quant_q4_0(block, k); }
INLINE int quant_of_Q5_0(const void *block, int k) { return quant_q5_0(block, k); }
INLINE int quant_of_Q4_1(const void *block, int k) { return quant_q4_1(block, k); }
INLINE int quant_of_Q5_1(const void *block, int k) { return quant_q5_1(block, k); }
INLINE int quant_of_MXFP4(const void *block, int k) { return quant_mxfp4(block, k); }
INLINE int quant_of_Q8_0(const void *block, int k) { return quant_q8_0(block, k); }
INLINE int quant_of_IQ4_NL(const void *block, int k) { return quant_iq4_nl(block, k); }

/* MXFP4's scale 2^(e - 128) as bf16. */
INLINE uint16_t bf16_of_exponent(uint8_t e) { return e > 1 ? (uint16_t)((e - 1) << 7) : (uint16_t)(0x20 << e); }

INLINE void repack(uint8_t *panel, const uint8_t *rows, int columns, const int bytes, const int bits, quant_of *quant, const struct kind kind) {
  const int blocks = columns / 32;
  __builtin_memset(panel, 0, (size_t)blocks * (size_t)kind.panel_bytes);
  for (int row = 0; row < PANEL_ROWS; row++) {
    for (int b = 0; b < blocks; b++, rows += bytes) {
      uint8_t *to = panel + (size_t)b * (size_t)kind.panel_bytes;
      const uint16_t power = bf16_of_exponent(rows[0]);
      __builtin_memcpy(to + 2 * row, kind.bf16 ? (const uint8_t *)&power : rows, 2); /* every block begins with its scale */
      if (kind.minima) __builtin_memcpy(to + kind.minima + 2 * row, rows + 2, 2);
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
    repack(panel, rows, columns, file_bytes, bits, quant_of_##name, kind_##name);                                                      \
  }                                                                                                                                    \
  static void dot_##name(float *out, const uint8_t *panel, const uint8_t *const *x, int columns, int tokens, uint8_t *scratch) {       \
    const int blocks = columns / 32;                                                                                                   \
    if (tokens >= UNPACK_FROM_TOKENS) unpack(scratch, panel, weights_##name, blocks, kind_##name);                                      \
    if (tokens >= UNPACK_FROM_TOKENS) RUN_TILES(tokens, UNPACKED, kind_##name);                                                        \
    else RUN_TILES(tokens, PACKED, name);                                                                                              \
  }                                                                                                                                    \
  const struct format FORMAT_##name = {#name, 32, file_bytes, kind_##name.panel_bytes, ACTIVATION_32, repack_##name, dot_##name};
#define UNPACKED(T, kind) tile(out + 8 * t, scratch, unpacked_weights, 0, x + t, blocks, T, kind)
#define PACKED(T, name) tile(out + 8 * t, panel, weights_##name, 1, x + t, blocks, T, kind_##name)

FORMAT(Q4_0, 18, 4, .panel_bytes = 144, .group = 8, .offset = 8)
FORMAT(Q4_1, 20, 4, .panel_bytes = 160, .group = 8, .minima = 144)
FORMAT(Q5_0, 22, 5, .panel_bytes = 176, .group = 4, .offset = 16)
FORMAT(Q5_1, 24, 5, .panel_bytes = 192, .group = 4, .minima = 176)
FORMAT(Q8_0, 34, 8, .panel_bytes = 272, .group = 1, .is_signed = 1)
FORMAT(IQ4_NL, 18, 4, .panel_bytes = 144, .group = 1, .is_signed = 1)
FORMAT(MXFP4, 17, 4, .panel_bytes = 144, .group = 4, .offset = 12, .bf16 = 1)
