/*
 * Blocks of 256 columns. A block is 4 chunks of 64, a chunk two groups of 32, a and b, and 16 steps; a step's vector has for row r the columns a[2s], a[2s + 1],
 * b[2s], b[2s + 1] at bytes 4r .. 4r + 3, so that 16-bit products are pairs (a, b) and one multiply-add applies both scales.
 *
 * Panel block: f16 d[8]; f16 dmin[8]; scales, byte 2r + (a or b): 16 bytes per chunk and as many minima, or, with scales per 16 columns, 32 bytes per
 * chunk for its halves; nibbles: per chunk 8 vectors, steps i and 8 + i; tops: the bits above, lowest steps first. Unpacked: bytes, 16 vectors per chunk.
 */
#include "../../wasm/blocks.h"
#include "twin.h"

enum { SCALES = 32, MINIMA = 96, NIBBLES = 160, TOPS = NIBBLES + 4 * 256, CHUNK_BYTES = 512 };

typedef __m256i weights_at(const uint8_t *block, int chunk, int step);

INLINE __m256i weights_Q4_K(const uint8_t *block, int chunk, int step) { return nibbles(block + NIBBLES + 256 * chunk + 32 * (step & 7), step >> 3); }
INLINE __m256i weights_Q5_K(const uint8_t *block, int chunk, int step) {
  return _mm256_or_si256(weights_Q4_K(block, chunk, step), to_fourth(load(block + TOPS + 64 * chunk + 32 * (step >> 3)), step & 7, 0x10));
}
INLINE __m256i weights_Q6_K(const uint8_t *block, int chunk, int step) {
  return _mm256_or_si256(weights_Q4_K(block, chunk, step), to_fourth(load(block + TOPS + 128 * chunk + 32 * (step >> 2)), 2 * (step & 3), 0x30));
}
INLINE __m256i unpacked_weights(const uint8_t *block, int chunk, int step) { return load(block + CHUNK_BYTES * chunk + 32 * step); }

/* What differs between formats; constants all. */
struct kind {
  int panel_bytes;
  int group;    /* neighbouring steps that may be summed in i16 */
  int by_16;    /* signed scales that change between steps 7 and 8, quants 32 too large; else scales and minima per 32 */
};

/* i16 pairs (a, b) of scales. */
INLINE __m256i scales(const uint8_t *block, int chunk, int late, const int by_16) {
  const __m128i bytes = _mm_loadu_si128((const __m128i *)(block + SCALES + (by_16 ? 32 * chunk + 16 * late : 16 * chunk)));
  return by_16 ? _mm256_cvtepi8_epi16(bytes) : _mm256_cvtepu8_epi16(bytes);
}

/* sum over chunks of minimum * sum(x), or of scale * 32 * sum(x) */
INLINE __m256i offsets(const uint8_t *block, const struct record_256 *record, const int by_16) {
  __m256i total = _mm256_setzero_si256();
  UNROLL for (int chunk = 0; chunk < 4; chunk++) {
    const __m256i early = splat_32(record->sums + 4 * chunk), late = splat_32(record->sums + 4 * chunk + 2);
    if (by_16) {
      total = _mm256_add_epi32(total, _mm256_madd_epi16(scales(block, chunk, 0, by_16), early));
      total = _mm256_add_epi32(total, _mm256_madd_epi16(scales(block, chunk, 1, by_16), late));
    } else {
      const __m256i minima = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(block + MINIMA + 16 * chunk)));
      total = _mm256_add_epi32(total, _mm256_madd_epi16(minima, _mm256_add_epi16(early, late)));
    }
  }
  return by_16 ? _mm256_slli_epi32(total, 5) : total;
}

/* out: f32[tokens, 8] for a literal number of tokens; `quants` is the block itself or an unpacked one. */
INLINE void tile(float *out, const uint8_t *block, const uint8_t *quants, const int quant_bytes, weights_at *weights, const uint8_t *const *x, int blocks,
                 const int tokens, const struct kind kind) {
  const struct record_256 *record[TILE_TOKENS];
  __m256 total[TILE_TOKENS];
  UNROLL for (int t = 0; t < tokens; t++) {
    record[t] = (const struct record_256 *)x[t];
    total[t] = _mm256_setzero_ps();
  }
  for (int b = 0; b < blocks; b++, block += kind.panel_bytes, quants += quant_bytes) {
    __m256i dot[TILE_TOKENS];
    UNROLL for (int t = 0; t < tokens; t++) dot[t] = _mm256_setzero_si256();
    for (int chunk = 0; chunk < 4; chunk++) {
      __m256i part[TILE_TOKENS][2];
      UNROLL for (int n = 0; n < 16; n++) {
        const int late = n / kind.group & 1, step = late * 8 + n / (2 * kind.group) * kind.group + n % kind.group;
        const __m256i w = weights(quants, chunk, step);
        UNROLL for (int t = 0; t < tokens; t++) {
          const __m256i product = _mm256_maddubs_epi16(w, splat_32(record[t]->values + 64 * chunk + 4 * step));
          part[t][late] = n % kind.group == 0 ? product : _mm256_add_epi16(part[t][late], product);
          if ((n + 1) % kind.group == 0) dot[t] = _mm256_add_epi32(dot[t], _mm256_madd_epi16(part[t][late], scales(block, chunk, late, kind.by_16)));
        }
      }
    }
    const __m256 d = load_f16x8(block), dmin = load_f16x8(block + 16);
    UNROLL for (int t = 0; t < tokens; t++) {
      const __m256 scale = _mm256_set1_ps(record[t]->scale);
      const __m256i offset = offsets(block, record[t], kind.by_16);
      const __m256i sum = kind.by_16 ? _mm256_sub_epi32(dot[t], offset) : dot[t];
      total[t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), _mm256_mul_ps(d, scale), total[t]);
      if (!kind.by_16) total[t] = _mm256_fnmadd_ps(_mm256_cvtepi32_ps(offset), _mm256_mul_ps(dmin, scale), total[t]);
      record[t]++;
    }
  }
  UNROLL for (int t = 0; t < tokens; t++) _mm256_storeu_ps(out + 8 * t, total[t]);
}

INLINE void unpack(uint8_t *unpacked, const uint8_t *block, const int panel_bytes, weights_at *weights, int blocks) {
  for (int b = 0; b < blocks; b++, block += panel_bytes) {
    for (int chunk = 0; chunk < 4; chunk++, unpacked += CHUNK_BYTES) {
      UNROLL for (int step = 0; step < 16; step++) store(unpacked + 32 * step, weights(block, chunk, step));
    }
  }
}

typedef int quant_of(const void *block, int k);
INLINE int quant_of_Q4_K(const void *block, int k) { return quant_q4_k(block, k); }
INLINE int quant_of_Q5_K(const void *block, int k) { return quant_q5_k(block, k); }
INLINE int quant_of_Q6_K(const void *block, int k) { return quant_q6_k(block, k); }

INLINE void repack_quants(uint8_t *panel, const uint8_t *block, int row, const int bits, quant_of *quant) {
  const int top_bits = bits - 4, steps_per_byte = top_bits ? 8 / top_bits : 1;
  for (int k = 0; k < 256; k++) {
    const int chunk = k / 64, step = k % 32 / 2, at = 4 * row + k % 64 / 32 * 2 + k % 2, q = quant(block, k);
    panel[NIBBLES + 256 * chunk + 32 * (step & 7) + at] |= (uint8_t)((q & 15) << (step < 8 ? 0 : 4));
    if (top_bits) {
      const int vector = chunk * (16 / steps_per_byte) + step / steps_per_byte;
      panel[TOPS + 32 * vector + at] |= (uint8_t)(q >> 4 << step % steps_per_byte * top_bits);
    }
  }
}

/* Q4_K and Q5_K begin alike. */
INLINE void repack_scales_of_32(uint8_t *panel, const uint8_t *block, int row) {
  const struct block_q4_k *b = (const struct block_q4_k *)block;
  __builtin_memcpy(panel + 2 * row, &b->d, 2);
  __builtin_memcpy(panel + 16 + 2 * row, &b->dmin, 2);
  for (int sub = 0; sub < 8; sub++) {
    panel[SCALES + sub / 2 * 16 + 2 * row + sub % 2] = (uint8_t)scale_of_12(b->scales, sub);
    panel[MINIMA + sub / 2 * 16 + 2 * row + sub % 2] = (uint8_t)minimum_of_12(b->scales, sub);
  }
}

INLINE void repack_scales_of_16(uint8_t *panel, const uint8_t *block, int row) {
  const struct block_q6_k *b = (const struct block_q6_k *)block;
  __builtin_memcpy(panel + 2 * row, &b->d, 2);
  for (int k = 0; k < 256; k += 16) panel[SCALES + k / 64 * 32 + k % 32 / 16 * 16 + 2 * row + k % 64 / 32] = (uint8_t)b->scales[k / 16];
}

/* FORMAT(name, bytes per file block, bits per weight, scales of 32 or 16, fields of struct kind) */
#define FORMAT(name, file_bytes, bits, columns_per_scale, ...)                                                                       \
  static const struct kind kind_##name = {__VA_ARGS__};                                                                              \
  static void repack_##name(uint8_t *panel, const uint8_t *rows, int columns) {                                                      \
    __builtin_memset(panel, 0, (size_t)(columns / 256) * (size_t)kind_##name.panel_bytes);                                           \
    for (int row = 0; row < PANEL_ROWS; row++) {                                                                                     \
      uint8_t *to = panel;                                                                                                           \
      for (int k = 0; k < columns; k += 256, rows += file_bytes, to += kind_##name.panel_bytes) {                                    \
        repack_quants(to, rows, row, bits, quant_of_##name);                                                                         \
        repack_scales_of_##columns_per_scale(to, rows, row);                                                                         \
      }                                                                                                                              \
    }                                                                                                                                \
  }                                                                                                                                  \
  static void dot_##name(float *out, const uint8_t *panel, const uint8_t *const *x, int columns, int tokens, uint8_t *scratch) {     \
    const int blocks = columns / 256;                                                                                                \
    if (tokens >= UNPACK_FROM_TOKENS) unpack(scratch, panel, kind_##name.panel_bytes, weights_##name, blocks);                       \
    if (tokens >= UNPACK_FROM_TOKENS) RUN_TILES(tokens, UNPACKED, kind_##name);                                                      \
    else RUN_TILES(tokens, PACKED, name);                                                                                            \
  }                                                                                                                                  \
  const struct format FORMAT_##name = {#name, 256, file_bytes, kind_##name.panel_bytes, ACTIVATION_256, repack_##name, dot_##name};
#define UNPACKED(T, kind) tile(out + 8 * t, panel, scratch, 4 * CHUNK_BYTES, unpacked_weights, x + t, blocks, T, kind)
#define PACKED(T, name) tile(out + 8 * t, panel, panel, kind_##name.panel_bytes, weights_##name, x + t, blocks, T, kind_##name)

FORMAT(Q4_K, 144, 4, 32, .panel_bytes = TOPS, .group = 8)
FORMAT(Q5_K, 176, 5, 32, .panel_bytes = TOPS + 4 * 64, .group = 4)
FORMAT(Q6_K, 210, 6, 16, .panel_bytes = TOPS + 4 * 128, .group = 2, .by_16 = 1)
