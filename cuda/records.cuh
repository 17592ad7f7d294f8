/*
 * Activation records as wasm/activations.h has them, byte for byte, written to host memory: neighbouring lanes write neighbouring words, so that
 * they travel as whole lines.
 */
#pragma once
#include "engine.cuh"

enum { WORDS_Q8X32 = 10, WORDS_Q8X256 = 81, MAX_FACTOR = 8 };

/*
 * Records q8x32 of one row: values i8[32], scale, sum of the values. values, scales: the row's as quantize.cu leaves them. The block's threads
 * share the words out.
 */
__device__ __forceinline__ void write_q8x32(uint32_t *record, const int8_t *values, const float *scales, int columns, int thread, int threads) {
  const uint32_t *words = (const uint32_t *)values;
  for (int i = thread; i < columns / 32 * WORDS_Q8X32; i += threads) {
    const int block = i / WORDS_Q8X32, word = i % WORDS_Q8X32;
    uint32_t out;
    if (word < 8) {
      out = words[block * 8 + word];
    } else if (word == 8) {
      out = __float_as_uint(scales[block * 2]);
    } else {
      int sum = 0;
      for (int k = 0; k < 8; k++) sum = __dp4a((int)words[block * 8 + k], 0x01010101, sum);
      out = (uint32_t)sum;
    }
    record[i] = out;
  }
}

/*
 * Records q8x256 of one row. The device keeps the product of scale and factor alone, but the largest factor is MAX_FACTOR in every block that has one
 * that is not zero, so that both can be told from the products. A warp writes a record; lane l holds values 8 l to 8 l + 7 of it.
 */
__device__ __forceinline__ void write_q8x256(uint32_t *record, const int8_t *values, const float *scales, int columns, int warp, int warps, int lane) {
  for (int block = warp; block < columns / 256; block += warps) {
    const float own = scales[block * 16 + lane / 2];
    float most = own; /* NaN and infinity are in all or none */
    for (int lanes = 2; lanes < 32; lanes *= 2) most = fmaxf(most, __shfl_xor_sync(~0u, most, lanes));
    const float scale = __fdiv_rn(most, (float)MAX_FACTOR);
    const int factor = max(__float2int_rn(__fdiv_rn(own, scale)), 1); /* NaN becomes 0 */
    const uint2 mine = ((const uint2 *)(values + block * 256))[lane];
    int sum = __dp4a((int)mine.x, 0x01010101, __dp4a((int)mine.y, 0x01010101, 0));
    sum = (sum + __shfl_xor_sync(~0u, sum, 1)) * factor;

    uint32_t *out = record + (size_t)block * WORDS_Q8X256;
    const uint16_t *pairs = (const uint16_t *)(values + block * 256);
    for (int w = lane; w < 64; w += 32) {
      /* a0 a1 b0 b1: b is 32 values behind a */
      const int at = w / 16 * 32 + w % 16;
      out[w] = (uint32_t)pairs[at] | (uint32_t)pairs[at + 16] << 16;
    }
    /* groups a0..a15, b0..b15, a16..a31, b16..b31: lane l writes groups 2 l and 2 l + 1, whose lanes are four groups' lanes apart */
    const int word = lane % 8, group = word / 2 * 4 + word % 2;
    const int sum_a = __shfl_sync(~0u, sum, 2 * group), sum_b = __shfl_sync(~0u, sum, 2 * group + 4);
    const int factor_a = __shfl_sync(~0u, factor, 2 * group), factor_b = __shfl_sync(~0u, factor, 2 * group + 4);
    if (lane < 8) out[64 + lane] = (uint32_t)(uint16_t)sum_a | (uint32_t)(uint16_t)sum_b << 16;
    else if (lane < 16) out[64 + lane] = (uint32_t)factor_a | (uint32_t)factor_b << 16;
    else if (lane == 16) out[80] = __float_as_uint(scale);
  }
}
