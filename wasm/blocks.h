/*
 * Blocks as they lie in a GGUF file, and one scalar decoder per format. Layouts: ggml's ggml-common.h; all fields little-endian, unaligned.
 * A decoder gives the stored integer of element k ("quant", not negative except for q8_0) and, for K-formats, a sub-block's scale and minimum.
 * C, C++ and CUDA (cuda/formats.cuh) read this file.
 */
#pragma once
#include <assert.h>
#include <stdint.h>

#ifdef __CUDACC__
#define DECODER static __host__ __device__ inline
#else
#define DECODER static inline
#endif

#define BLOCK struct __attribute__((packed))

BLOCK block_q4_0 { uint16_t d; uint8_t qs[16]; };
BLOCK block_q4_1 { uint16_t d, m; uint8_t qs[16]; };
BLOCK block_q5_0 { uint16_t d; uint32_t qh; uint8_t qs[16]; };
BLOCK block_q5_1 { uint16_t d, m; uint32_t qh; uint8_t qs[16]; };
BLOCK block_q8_0 { uint16_t d; int8_t qs[32]; };
BLOCK block_iq4_nl { uint16_t d; uint8_t qs[16]; };
BLOCK block_mxfp4 { uint8_t e; uint8_t qs[16]; };
BLOCK block_q2_k { uint8_t scales[16]; uint8_t qs[64]; uint16_t d, dmin; };
BLOCK block_q3_k { uint8_t hmask[32]; uint8_t qs[64]; uint8_t scales[12]; uint16_t d; };
BLOCK block_q4_k { uint16_t d, dmin; uint8_t scales[12]; uint8_t qs[128]; };
BLOCK block_q5_k { uint16_t d, dmin; uint8_t scales[12]; uint8_t qh[32]; uint8_t qs[128]; };
BLOCK block_q6_k { uint8_t ql[128]; uint8_t qh[64]; int8_t scales[16]; uint16_t d; };
BLOCK block_iq4_xs { uint16_t d, scales_h; uint8_t scales_l[4]; uint8_t qs[128]; };

static_assert(sizeof(struct block_q4_0) == 18, "Q4_0");
static_assert(sizeof(struct block_q4_1) == 20, "Q4_1");
static_assert(sizeof(struct block_q5_0) == 22, "Q5_0");
static_assert(sizeof(struct block_q5_1) == 24, "Q5_1");
static_assert(sizeof(struct block_q8_0) == 34, "Q8_0");
static_assert(sizeof(struct block_iq4_nl) == 18, "IQ4_NL");
static_assert(sizeof(struct block_mxfp4) == 17, "MXFP4");
static_assert(sizeof(struct block_q2_k) == 84, "Q2_K");
static_assert(sizeof(struct block_q3_k) == 110, "Q3_K");
static_assert(sizeof(struct block_q4_k) == 144, "Q4_K");
static_assert(sizeof(struct block_q5_k) == 176, "Q5_K");
static_assert(sizeof(struct block_q6_k) == 210, "Q6_K");
static_assert(sizeof(struct block_iq4_xs) == 136, "IQ4_XS");

/* Low nibbles are elements 0..15, high nibbles 16..31. */
DECODER int nibble_of_32(const uint8_t *qs, int k) { return k < 16 ? qs[k] & 15 : qs[k - 16] >> 4; }

/* weight = d (quant - 8) */
DECODER int quant_q4_0(const struct block_q4_0 *b, int k) { return nibble_of_32(b->qs, k); }

/* weight = d (quant - 16); bit k of qh is the fifth bit of element k */
DECODER int quant_q5_0(const struct block_q5_0 *b, int k) { return nibble_of_32(b->qs, k) | (int)((b->qh >> k) & 1) << 4; }

/* weight = d quant + m */
DECODER int quant_q4_1(const struct block_q4_1 *b, int k) { return nibble_of_32(b->qs, k); }
DECODER int quant_q5_1(const struct block_q5_1 *b, int k) { return nibble_of_32(b->qs, k) | (int)((b->qh >> k) & 1) << 4; }

/* weight = d quant */
DECODER int quant_q8_0(const struct block_q8_0 *b, int k) { return b->qs[k]; }

/* weight = d IQ4_NL_VALUES[quant] */
DECODER int quant_iq4_nl(const struct block_iq4_nl *b, int k) { return nibble_of_32(b->qs, k); }

/* Every value of a table plus `by`. */
#define IQ4_NL_VALUES(by) (by) - 127, (by) - 104, (by) - 83, (by) - 65, (by) - 49, (by) - 35, (by) - 22, (by) - 10, (by) + 1, (by) + 13, (by) + 25, \
  (by) + 38, (by) + 53, (by) + 69, (by) + 89, (by) + 113
#define MXFP4_VALUES(by) (by), (by) + 1, (by) + 2, (by) + 3, (by) + 4, (by) + 6, (by) + 8, (by) + 12, \
  (by), (by) - 1, (by) - 2, (by) - 3, (by) - 4, (by) - 6, (by) - 8, (by) - 12

/* weight = 2^(e - 128) MXFP4_VALUES[quant]: the values are twice those of the standard's E2M1 */
DECODER int quant_mxfp4(const struct block_mxfp4 *b, int k) { return nibble_of_32(b->qs, k); }

/* Each half of 128 has 32 bytes of two bits per element, quarter by quarter. */
DECODER int two_bits_of_256(const uint8_t *qs, int k) { return qs[k / 128 * 32 + k % 32] >> k % 128 / 32 * 2 & 3; }

/* weight = d (scales[k / 16] & 15) quant - dmin (scales[k / 16] >> 4) */
DECODER int quant_q2_k(const struct block_q2_k *b, int k) { return two_bits_of_256(b->qs, k); }

/* weight = d (scale[k / 16] - 32) (quant - 4) */
DECODER int quant_q3_k(const struct block_q3_k *b, int k) { return two_bits_of_256(b->qs, k) | (b->hmask[k % 32] >> k / 32 & 1) << 2; }
DECODER int scale_q3_k(const struct block_q3_k *b, int sub) {
  return (sub < 8 ? b->scales[sub] & 15 : b->scales[sub - 8] >> 4) | (b->scales[8 + sub % 4] >> sub / 4 * 2 & 3) << 4;
}

/* weight = d (scale[k / 32] - 32) IQ4_NL_VALUES[quant] */
DECODER int quant_iq4_xs(const struct block_iq4_xs *b, int k) { return nibble_of_32(b->qs + k / 32 * 16, k % 32); }
DECODER int scale_iq4_xs(const struct block_iq4_xs *b, int sub) {
  return (b->scales_l[sub / 2] >> sub % 2 * 4 & 15) | (b->scales_h >> sub * 2 & 3) << 4;
}

/* Pairs of sub-blocks of 32 share 32 bytes: the first has the low nibbles, the second the high ones. */
DECODER int nibble_of_256(const uint8_t *qs, int k) {
  const int byte = qs[k / 64 * 32 + k % 32];
  return k % 64 < 32 ? byte & 15 : byte >> 4;
}

/* Scales and minima of 8 sub-blocks, six bits each, in 12 bytes. */
DECODER int scale_of_12(const uint8_t *s, int sub) { return sub < 4 ? s[sub] & 63 : (s[sub + 4] & 15) | (s[sub - 4] >> 6) << 4; }
DECODER int minimum_of_12(const uint8_t *s, int sub) { return sub < 4 ? s[sub + 4] & 63 : s[sub + 4] >> 4 | (s[sub] >> 6) << 4; }

/* weight = d scale[k / 32] quant - dmin minimum[k / 32] */
DECODER int quant_q4_k(const struct block_q4_k *b, int k) { return nibble_of_256(b->qs, k); }
DECODER int quant_q5_k(const struct block_q5_k *b, int k) { return nibble_of_256(b->qs, k) | (b->qh[k % 32] >> (k / 32) & 1) << 4; }

/* weight = d scale[k / 16] (quant - 32); each half of 128 has 64 bytes of low nibbles and 32 bytes of two-bit tops */
DECODER int quant_q6_k(const struct block_q6_k *b, int k) {
  const int half = k / 128, quarter = k % 128 / 32, l = k % 32;
  const int low = b->ql[half * 64 + (quarter & 1) * 32 + l] >> (quarter >> 1) * 4 & 15;
  return low | (b->qh[half * 32 + l] >> quarter * 2 & 3) << 4;
}

/* True when an f16 is neither infinite nor NaN. */
DECODER int f16_is_finite(uint16_t h) { return (h & 0x7c00) != 0x7c00; }
