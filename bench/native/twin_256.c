/*
 * Blocks of 256 columns. A block is 4 chunks of 64, a chunk two groups of 32, a and b, and 16 steps; a step's vector has for row r the columns a[2s], a[2s + 1],
 * b[2s], b[2s + 1] at bytes 4r .. 4r + 3, so that 16-bit products are pairs (a, b) and one multiply-add applies both scales.
 *
 * Panel block: f16 d[8]; f16 dmin[8]; scales, byte 2r + (a or b): per chunk 16 bytes, or 32 where they change with the halves of a chunk (steps 0..7, 8..15);
 * minima, where there are some, as many; quants: nibbles are per chunk 8 vectors, steps i and 8 + i, two bits 4 vectors, steps 4i .. 4i + 3; tops: the bits
 * above, lowest steps first. Unpacked: bytes, 16 vectors per chunk.
 */
#include "../../wasm/blocks.h"
#include "twin.h"

enum { SCALES = 32, CHUNK_BYTES = 512 };
/* Where quants and tops begin; QUANTS_name is also where minima end. */
enum {
  QUANTS_Q2_K = SCALES + 2 * 128,
  QUANTS_Q3_K = SCALES + 128,
  QUANTS_Q4_K = SCALES + 2 * 64,
  QUANTS_Q5_K = QUANTS_Q4_K,
  QUANTS_Q6_K = SCALES + 128,
  QUANTS_IQ4_XS = SCALES + 64,
  TOPS_Q3_K = QUANTS_Q3_K + 4 * 128,
  TOPS_Q5_K = QUANTS_Q5_K + 4 * 256,
  TOPS_Q6_K = QUANTS_Q6_K + 4 * 256,
};

typedef __m256i weights_at(const uint8_t *block, int chunk, int step);

INLINE __m256i nibbles_at(const uint8_t *quants, int chunk, int step) { return nibbles(quants + 256 * chunk + 32 * (step & 7), step >> 3); }
/* `bits` bits of each step, moved to bit `to`. */
INLINE __m256i bits_at(const uint8_t *at, int chunk, int step, const int bits, const int to) {
  const int steps = 8 / bits, mask = ((1 << bits) - 1) << to;
  return move_bits(load(at + 64 * bits * chunk + 32 * (step / steps)), step % steps * bits, to, mask);
}

INLINE __m256i weights_Q2_K(const uint8_t *block, int chunk, int step) { return bits_at(block + QUANTS_Q2_K, chunk, step, 2, 0); }
INLINE __m256i weights_Q3_K(const uint8_t *block, int chunk, int step) {
  return _mm256_or_si256(bits_at(block + QUANTS_Q3_K, chunk, step, 2, 0), bits_at(block + TOPS_Q3_K, chunk, step, 1, 2));
}
INLINE __m256i weights_Q4_K(const uint8_t *block, int chunk, int step) { return nibbles_at(block + QUANTS_Q4_K, chunk, step); }
INLINE __m256i weights_Q5_K(const uint8_t *block, int chunk, int step) {
  return _mm256_or_si256(nibbles_at(block + QUANTS_Q5_K, chunk, step), bits_at(block + TOPS_Q5_K, chunk, step, 1, 4));
}
INLINE __m256i weights_Q6_K(const uint8_t *block, int chunk, int step) {
  return _mm256_or_si256(nibbles_at(block + QUANTS_Q6_K, chunk, step), bits_at(block + TOPS_Q6_K, chunk, step, 2, 4));
}
INLINE __m256i weights_IQ4_XS(const uint8_t *block, int chunk, int step) {
  return lookup(_mm_setr_epi8(IQ4_NL_VALUES(0)), nibbles_at(block + QUANTS_IQ4_XS, chunk, step));
}
INLINE __m256i unpacked_weights(const uint8_t *block, int chunk, int step) { return load(block + CHUNK_BYTES * chunk + 32 * step); }

/* What differs between formats; constants all. weight = d scale (quant - center) - dmin minimum */
struct kind {
  int panel_bytes;
  int group;     /* neighbouring steps that may be summed in i16 */
  int by_16;     /* scales and minima change between steps 7 and 8 */
  int minima;    /* where they are, or 0 */
  int center;    /* a power of two, or 0 */
  int is_signed; /* weights are signed bytes */
};

/* i16 pairs (a, b) of scales or minima. */
INLINE __m256i scales(const uint8_t *at, int chunk, int late, const int by_16) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(at + (by_16 ? 32 * chunk + 16 * late : 16 * chunk))));
}

/* sum over chunks of (scale or minimum) * sum(x) */
INLINE __m256i scaled_sums(const uint8_t *at, const struct record_256 *record, const int by_16) {
  __m256i total = _mm256_setzero_si256();
  UNROLL for (int chunk = 0; chunk < 4; chunk++) {
    const __m256i early = splat_32(record->sums + 4 * chunk), late = splat_32(record->sums + 4 * chunk + 2);
    if (by_16) {
      total = _mm256_add_epi32(total, _mm256_madd_epi16(scales(at, chunk, 0, by_16), early));
      total = _mm256_add_epi32(total, _mm256_madd_epi16(scales(at, chunk, 1, by_16), late));
    } else {
      total = _mm256_add_epi32(total, _mm256_madd_epi16(scales(at, chunk, 0, by_16), _mm256_add_epi16(early, late)));
    }
  }
  return total;
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
          const __m256i product = products(w, splat_32(record[t]->values + 64 * chunk + 4 * step), kind.is_signed);
          part[t][late] = n % kind.group == 0 ? product : _mm256_add_epi16(part[t][late], product);
          if ((n + 1) % kind.group == 0) dot[t] = _mm256_add_epi32(dot[t], _mm256_madd_epi16(part[t][late], scales(block + SCALES, chunk, late, kind.by_16)));
        }
      }
    }
    const __m256 d = load_f16x8(block), dmin = load_f16x8(block + 16);
    UNROLL for (int t = 0; t < tokens; t++) {
      const __m256 scale = _mm256_set1_ps(record[t]->scale);
      if (kind.center) dot[t] = _mm256_sub_epi32(dot[t], _mm256_mullo_epi32(scaled_sums(block + SCALES, record[t], kind.by_16), _mm256_set1_epi32(kind.center)));
      total[t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[t]), _mm256_mul_ps(d, scale), total[t]);
      if (kind.minima) {
        const __m256i minima = scaled_sums(block + kind.minima, record[t], kind.by_16);
        total[t] = _mm256_fnmadd_ps(_mm256_cvtepi32_ps(minima), _mm256_mul_ps(dmin, scale), total[t]);
      }
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

/* One file block of 256: its quants, and scale and minimum of each 16 columns. */
#define READ_BLOCK(name, type, quant, scale, minimum)                                           \
  INLINE int quant_of_##name(const uint8_t *block, int k) { return quant((const struct type *)block, k); } \
  INLINE int scale_of_##name(const uint8_t *block, int sub) {                                   \
    const struct type *b = (const struct type *)block;                                          \
    return scale;                                                                               \
  }                                                                                             \
  INLINE int minimum_of_##name(const uint8_t *block, int sub) {                                 \
    const struct type *b = (const struct type *)block;                                          \
    return (void)b, (void)sub, minimum;                                                         \
  }
READ_BLOCK(Q2_K, block_q2_k, quant_q2_k, b->scales[sub] & 15, b->scales[sub] >> 4)
READ_BLOCK(Q3_K, block_q3_k, quant_q3_k, scale_q3_k(b, sub) - 32, 0)
READ_BLOCK(Q4_K, block_q4_k, quant_q4_k, scale_of_12(b->scales, sub / 2), minimum_of_12(b->scales, sub / 2))
READ_BLOCK(Q5_K, block_q5_k, quant_q5_k, scale_of_12(b->scales, sub / 2), minimum_of_12(b->scales, sub / 2))
READ_BLOCK(Q6_K, block_q6_k, quant_q6_k, b->scales[sub], 0)
READ_BLOCK(IQ4_XS, block_iq4_xs, quant_iq4_xs, scale_iq4_xs(b, sub / 2) - 32, 0)

typedef int read_block(const uint8_t *block, int index);

/* Writes row `row` of a panel block. `low` bits of a quant are in quants, `high` in tops, which follow. */
INLINE void repack_block(uint8_t *panel, const uint8_t *block, int row, read_block *quant, read_block *scale, read_block *minimum, const int quants,
                         const int low, const int high, const struct kind kind) {
  for (int k = 0; k < 256; k++) {
    const int chunk = k / 64, step = k % 32 / 2, at = 4 * row + k % 64 / 32 * 2 + k % 2, q = quant(block, k);
    uint8_t *chunk_quants = panel + quants + 64 * low * chunk + at, *tops = panel + quants + 4 * 64 * low + 64 * high * chunk + at;
    if (low == 4) chunk_quants[32 * (step & 7)] |= (uint8_t)((q & 15) << (step < 8 ? 0 : 4));
    else chunk_quants[32 * (step / 4)] |= (uint8_t)((q & 3) << step % 4 * 2);
    if (high) tops[32 * (step * high / 8)] |= (uint8_t)(q >> low << step * high % 8);
  }
  for (int sub = 0; sub < 16; sub++) {
    const int at = (kind.by_16 ? sub / 4 * 32 + sub % 2 * 16 : sub / 4 * 16) + 2 * row + sub % 4 / 2;
    panel[SCALES + at] = (uint8_t)scale(block, sub);
    if (kind.minima) panel[kind.minima + at] = (uint8_t)minimum(block, sub);
  }
}

/* FORMAT(name, block, where dmin is in it or d, bits in quants, bits in tops, fields of struct kind) */
#define FORMAT(name, type, dmin_field, low, high, ...)                                                                               \
  static const struct kind kind_##name = {.panel_bytes = QUANTS_##name + 256 * ((low) + (high)), __VA_ARGS__};                       \
  static void repack_##name(uint8_t *panel, const uint8_t *rows, int columns) {                                                      \
    __builtin_memset(panel, 0, (size_t)(columns / 256) * (size_t)kind_##name.panel_bytes);                                           \
    for (int row = 0; row < PANEL_ROWS; row++) {                                                                                     \
      uint8_t *to = panel;                                                                                                           \
      for (int k = 0; k < columns; k += 256, rows += sizeof(struct type), to += kind_##name.panel_bytes) {                           \
        __builtin_memcpy(to + 2 * row, rows + offsetof(struct type, d), 2);                                                          \
        __builtin_memcpy(to + 16 + 2 * row, rows + offsetof(struct type, dmin_field), 2);                                            \
        repack_block(to, rows, row, quant_of_##name, scale_of_##name, minimum_of_##name, QUANTS_##name, low, high, kind_##name);     \
      }                                                                                                                              \
    }                                                                                                                                \
  }                                                                                                                                  \
  static void dot_##name(float *out, const uint8_t *panel, const uint8_t *const *x, int columns, int tokens, uint8_t *scratch) {     \
    const int blocks = columns / 256;                                                                                                \
    if (tokens >= UNPACK_FROM_TOKENS) unpack(scratch, panel, kind_##name.panel_bytes, weights_##name, blocks);                       \
    if (tokens >= UNPACK_FROM_TOKENS) RUN_TILES(tokens, UNPACKED, kind_##name);                                                      \
    else RUN_TILES(tokens, PACKED, name);                                                                                            \
  }                                                                                                                                  \
  const struct format FORMAT_##name = {#name,         256, sizeof(struct type), kind_##name.panel_bytes, ACTIVATION_256,             \
                                       repack_##name, dot_##name};
#define UNPACKED(T, kind) tile(out + 8 * t, panel, scratch, 4 * CHUNK_BYTES, unpacked_weights, x + t, blocks, T, kind)
#define PACKED(T, name) tile(out + 8 * t, panel, panel, kind_##name.panel_bytes, weights_##name, x + t, blocks, T, kind_##name)

FORMAT(Q2_K, block_q2_k, dmin, 2, 0, .group = 8, .by_16 = 1, .minima = SCALES + 128)
FORMAT(Q3_K, block_q3_k, d, 2, 1, .group = 8, .by_16 = 1, .center = 4)
FORMAT(Q4_K, block_q4_k, dmin, 4, 0, .group = 8, .minima = SCALES + 64)
FORMAT(Q5_K, block_q5_k, dmin, 4, 1, .group = 4, .minima = SCALES + 64)
FORMAT(Q6_K, block_q6_k, d, 4, 2, .group = 2, .by_16 = 1, .center = 32)
FORMAT(IQ4_XS, block_iq4_xs, d, 4, 0, .group = 1, .is_signed = 1)
