/*
 * What the checks compare with: one weight at a time in float64 from wasm/blocks.h's scalar decoders, and blocks of random weights. Slow and plain
 * on purpose; nothing of formats_unpack.cuh is used.
 */
#pragma once
#include <math.h>
#include "../formats.cuh"

/* A small generator (xorshift64*), the same numbers everywhere. */
struct random_source {
  uint64_t state;
  uint32_t bits() {
    state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
    return (uint32_t)(state * 0x2545f4914f6cdd1dull >> 32);
  }
  float uniform() { return (float)(bits() >> 8) * 0x1p-24f; }
  /* Near enough to normal with variance 1. */
  float normal() { return (uniform() + uniform() + uniform() + uniform() - 2) * 1.7320508f; }
};

inline double half_reference(uint16_t h) {
  const int exponent = h >> 10 & 31, fraction = h & 1023;
  const double size = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
  return h & 0x8000 ? -size : size;
}

/* Weight k of a row of float weights, or of a block. */
template <int FORMAT> double weight_reference(const uint8_t *block, int k);

#define WEIGHT_REFERENCE(name, type, formula)                                               \
  template <> inline double weight_reference<FORMAT_##name>(const uint8_t *block, int k) { \
    const type *b = (const type *)block;                                                    \
    return formula;                                                                         \
  }
static const int8_t IQ4_NL_REFERENCE[16] = {IQ4_NL_VALUES(0)}, MXFP4_REFERENCE[16] = {MXFP4_VALUES(0)};

WEIGHT_REFERENCE(F32, float, (double)b[k])
WEIGHT_REFERENCE(F16, uint16_t, half_reference(b[k]))
WEIGHT_REFERENCE(BF16, uint16_t, (double)float_of_bits((uint32_t)b[k] << 16))
WEIGHT_REFERENCE(Q4_0, block_q4_0, half_reference(b->d) * (quant_q4_0(b, k) - 8))
WEIGHT_REFERENCE(Q4_1, block_q4_1, half_reference(b->d) * quant_q4_1(b, k) + half_reference(b->m))
WEIGHT_REFERENCE(Q5_0, block_q5_0, half_reference(b->d) * (quant_q5_0(b, k) - 16))
WEIGHT_REFERENCE(Q5_1, block_q5_1, half_reference(b->d) * quant_q5_1(b, k) + half_reference(b->m))
WEIGHT_REFERENCE(Q8_0, block_q8_0, half_reference(b->d) * quant_q8_0(b, k))
WEIGHT_REFERENCE(IQ4_NL, block_iq4_nl, half_reference(b->d) * IQ4_NL_REFERENCE[quant_iq4_nl(b, k)])
WEIGHT_REFERENCE(MXFP4, block_mxfp4, ldexp(MXFP4_REFERENCE[quant_mxfp4(b, k)], b->e - 128))
WEIGHT_REFERENCE(Q2_K, block_q2_k,
                 half_reference(b->d) * (b->scales[k / 16] & 15) * quant_q2_k(b, k) - half_reference(b->dmin) * (b->scales[k / 16] >> 4))
WEIGHT_REFERENCE(Q3_K, block_q3_k, half_reference(b->d) * (scale_q3_k(b, k / 16) - 32) * (quant_q3_k(b, k) - 4))
WEIGHT_REFERENCE(Q4_K, block_q4_k, half_reference(b->d) * scale_of_12(b->scales, k / 32) * quant_q4_k(b, k) -
                                       half_reference(b->dmin) * minimum_of_12(b->scales, k / 32))
WEIGHT_REFERENCE(Q5_K, block_q5_k, half_reference(b->d) * scale_of_12(b->scales, k / 32) * quant_q5_k(b, k) -
                                       half_reference(b->dmin) * minimum_of_12(b->scales, k / 32))
WEIGHT_REFERENCE(Q6_K, block_q6_k, half_reference(b->d) * b->scales[k / 16] * (quant_q6_k(b, k) - 32))
WEIGHT_REFERENCE(IQ4_XS, block_iq4_xs, half_reference(b->d) * (scale_iq4_xs(b, k / 32) - 32) * IQ4_NL_REFERENCE[quant_iq4_xs(b, k)])

/* Offsets of a block's f16 numbers, -1 when there is none; MXFP4's exponent is told apart. */
inline void half_offsets(int format, int &d, int &m) {
  d = 0, m = -1;
  if (format == FORMAT_Q4_1 || format == FORMAT_Q5_1 || format == FORMAT_Q4_K || format == FORMAT_Q5_K) m = 2;
  if (format == FORMAT_Q2_K) d = 80, m = 82;
  if (format == FORMAT_Q3_K) d = 108;
  if (format == FORMAT_Q6_K) d = 208;
}

/* A finite f16 of either sign, about 2^-10 in size. */
inline uint16_t random_half(random_source &random) { return (uint16_t)((random.bits() & 0x83ff) | (4 + random.bits() % 3) << 10); }

/* Random weights: every bit of a block, but scales that make sense; float weights between -1 and 1. `bytes` is whole blocks. */
inline void random_weights(int format, uint8_t *rows, size_t bytes, int block_bytes, random_source &random) {
  for (size_t at = 0; at < bytes; at += (size_t)block_bytes) {
    uint8_t *block = rows + at;
    if (format == FORMAT_F32) {
      const float value = random.normal();
      memcpy(block, &value, 4);
      continue;
    }
    for (int i = 0; i < block_bytes; i++) block[i] = (uint8_t)random.bits();
    int d, m;
    half_offsets(format, d, m);
    if (format == FORMAT_MXFP4) {
      block[0] = (uint8_t)(120 + random.bits() % 4);
      continue;
    }
    if (format == FORMAT_BF16) {
      block[1] = (uint8_t)((block[1] & 0x80) | 0x3e);
      continue;
    }
    const uint16_t scale = random_half(random), minimum = random_half(random);
    memcpy(block + d, &scale, 2);
    if (m >= 0) memcpy(block + m, &minimum, 2);
  }
}
