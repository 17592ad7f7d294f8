/*
 * The weight formats on the device: one row of WEIGHT_FORMATS and one `weights<FORMAT>` each. Structs and scalar decoders are those of
 * wasm/blocks.h; here are decoders that give sixteen weights at a time. The stand-in (host/) compiles this file with g++.
 *
 * To add a format: a row here, its `weights`, and what wasm/formats.h says.
 */
#pragma once
#include <stdint.h>
#include <string.h>
#include "../wasm/blocks.h"
#ifdef __CUDACC__
#include <cuda_fp16.h>
#define HD __host__ __device__ __forceinline__
#define UNROLL _Pragma("unroll")
#else
#define HD inline
#define UNROLL
#endif

/* What activations become before they meet a weight (src/abi/formats.ts). */
enum activation { ACTIVATION_F32 = 0, ACTIVATION_Q8X32 = 1, ACTIVATION_Q8X256 = 2 };

/* X(name, ggml id, elements per block, bytes per block, activation) */
#define FLOAT_FORMATS(X)            \
  X(F32, 0, 1, 4, ACTIVATION_F32)   \
  X(F16, 1, 1, 2, ACTIVATION_F32)   \
  X(BF16, 30, 1, 2, ACTIVATION_F32)
#define QUANTIZED_FORMATS(X)                 \
  X(Q4_0, 2, 32, 18, ACTIVATION_Q8X32)       \
  X(Q4_1, 3, 32, 20, ACTIVATION_Q8X32)       \
  X(Q5_0, 6, 32, 22, ACTIVATION_Q8X32)       \
  X(Q5_1, 7, 32, 24, ACTIVATION_Q8X32)       \
  X(Q8_0, 8, 32, 34, ACTIVATION_Q8X32)       \
  X(IQ4_NL, 20, 32, 18, ACTIVATION_Q8X32)    \
  X(MXFP4, 39, 32, 17, ACTIVATION_Q8X32)     \
  X(Q2_K, 10, 256, 84, ACTIVATION_Q8X256)    \
  X(Q3_K, 11, 256, 110, ACTIVATION_Q8X256)   \
  X(Q4_K, 12, 256, 144, ACTIVATION_Q8X256)   \
  X(Q5_K, 13, 256, 176, ACTIVATION_Q8X256)   \
  X(Q6_K, 14, 256, 210, ACTIVATION_Q8X256)   \
  X(IQ4_XS, 23, 256, 136, ACTIVATION_Q8X256)
#define WEIGHT_FORMATS(X) FLOAT_FORMATS(X) QUANTIZED_FORMATS(X)

#define FORMAT_ID(name, id, ...) FORMAT_##name = id,
enum format_id { WEIGHT_FORMATS(FORMAT_ID) };
#undef FORMAT_ID

/* A format's row of the table as constants. */
template <int FORMAT> struct format_row;
#define FORMAT_CONSTANTS(name, id, elements, bytes, activation)                                         \
  template <> struct format_row<FORMAT_##name> {                                                        \
    static constexpr int ID = id, ELEMENTS = elements, BYTES = bytes, ACTIVATION = activation;          \
  };
WEIGHT_FORMATS(FORMAT_CONSTANTS)
#undef FORMAT_CONSTANTS

/*
 * How weights of a format are read.
 *
 * value   float formats: weight k of a row
 * unpack  quantised formats: the 16 consecutive weights of group `group` (k = 16 group and on within the block) as bytes in order, such that
 *         weight = scale * value - minimum; HAS_MINIMUM 0: minimum is always 0. `block` lies as a file's rows do: on an even address, a
 *         multiple of 4 where BYTES is one; MXFP4 anywhere.
 */
template <int FORMAT> struct weights;

HD float float_of_bits(uint32_t bits) {
  float f;
  memcpy(&f, &bits, sizeof f);
  return f;
}

/* f16 bits as f32; special values stay what they are. */
HD float half_to_float(uint16_t h) {
#ifdef __CUDA_ARCH__
  return __half2float(__ushort_as_half(h));
#else
  const uint32_t exponent = h >> 10 & 31, fraction = h & 1023, sign = (uint32_t)(h & 0x8000) << 16;
  if (exponent == 31) return float_of_bits(sign | 0x7f800000 | fraction << 13);
  const float size = exponent ? float_of_bits((exponent + 112) << 23 | fraction << 13) : (float)fraction * 0x1p-24f;
  return sign ? -size : size;
#endif
}

HD float bfloat_to_float(uint16_t b) { return float_of_bits((uint32_t)b << 16); }

/* A number on an even address. */
HD uint16_t load_u16(const uint8_t *p) { return *(const uint16_t *)p; }

/*
 * COUNT words from an address that is a multiple of ALIGNMENT (1, 2, 4 or more). The device loads whole words and shifts neighbours together: a
 * third of the loads that halves would take. Nothing outside the bytes' own words is touched.
 */
template <int ALIGNMENT, int COUNT> HD void load_words(const uint8_t *p, uint32_t (&words)[COUNT]) {
#ifdef __CUDA_ARCH__
  if (ALIGNMENT % 4 == 0) {
    UNROLL for (int i = 0; i < COUNT; i++) words[i] = ((const uint32_t *)p)[i];
    return;
  }
  const uint32_t off = (uint32_t)(size_t)p & 3;
  const uint32_t *whole = (const uint32_t *)(p - off);
  uint32_t low = whole[0];
  UNROLL for (int i = 0; i < COUNT; i++) {
    const uint32_t high = i + 1 < COUNT ? whole[i + 1] : whole[off ? COUNT : COUNT - 1];
    words[i] = __funnelshift_r(low, high, 8 * off);
    low = high;
  }
#else
  memcpy(words, p, sizeof words);
#endif
}

/* Four bytes minus four bytes, each in 0..127, without a borrow between them. */
HD uint32_t subtract_bytes(uint32_t a, uint32_t b) { return ((a | 0x80808080u) - b) ^ 0x80808080u; }

/* The four bits from `bit` on, one in each byte. */
HD uint32_t spread_bits(uint32_t bits, int bit) { return (bits >> bit & 15) * 0x00204081u & 0x01010101u; }

/* 16 signed bytes as words. */
struct byte_table {
  uint32_t words[4];
};

#define PACK_BYTES(a, b, c, d) ((uint32_t)(uint8_t)(a) | (uint32_t)(uint8_t)(b) << 8 | (uint32_t)(uint8_t)(c) << 16 | (uint32_t)(uint8_t)(d) << 24)
#define PACK_16(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p) \
  {{PACK_BYTES(a, b, c, d), PACK_BYTES(e, f, g, h), PACK_BYTES(i, j, k, l), PACK_BYTES(m, n, o, p)}}
#define PACK_TABLE(...) PACK_16(__VA_ARGS__)

/* The table's values for the low (high: the high) nibbles of four bytes. */
HD uint32_t lookup_nibbles(const byte_table &table, uint32_t nibbles, int high) {
#ifdef __CUDA_ARCH__
  uint32_t pairs[2]; /* values of low, high, low, high nibble */
  UNROLL for (int i = 0; i < 2; i++) {
    const uint32_t index = nibbles >> 16 * i, within = index & 0x7777;
    const uint32_t below = __byte_perm(table.words[0], table.words[1], within), above = __byte_perm(table.words[2], table.words[3], within);
    pairs[i] = __byte_perm(below, above, 0x3210 | (index & 0x8888) >> 1);
  }
  return __byte_perm(pairs[0], pairs[1], high ? 0x7531 : 0x6420);
#else
  uint32_t values = 0;
  for (int i = 0; i < 4; i++) {
    const uint32_t index = nibbles >> (8 * i + 4 * high) & 15;
    values |= (table.words[index / 4] >> 8 * (index % 4) & 255) << 8 * i;
  }
  return values;
#endif
}

#include "formats_unpack.cuh"

/*
 * call(weights<FORMAT>()) for the format with this id; the answer of `otherwise()` when there is none.
 *     with_format(w.format, [&](auto format) { return launch<decltype(format)>(w); }, [] { return TCU_FORMAT; })
 */
template <typename Call, typename Otherwise> auto with_format(int id, Call call, Otherwise otherwise) -> decltype(otherwise()) {
  switch (id) {
#define FORMAT_CASE(name, ...) case FORMAT_##name: return call(weights<FORMAT_##name>());
    WEIGHT_FORMATS(FORMAT_CASE)
    default: return otherwise();
  }
}
/* The same without the float formats. */
template <typename Call, typename Otherwise> auto with_quantized_format(int id, Call call, Otherwise otherwise) -> decltype(otherwise()) {
  switch (id) {
    QUANTIZED_FORMATS(FORMAT_CASE)
#undef FORMAT_CASE
    default: return otherwise();
  }
}
