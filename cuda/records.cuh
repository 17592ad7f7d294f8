/*
 * Activation records as wasm/activations.h has them, byte for byte, written to host memory: neighbouring lanes write neighbouring words, so that
 * they travel as whole lines.
 */
#pragma once
#include "engine.cuh"

enum { WORDS_Q8X32 = 10, WORDS_Q8X256 = 81, MAX_FACTOR = 8 };

/* The larger one, NaN when either is. */
__device__ __forceinline__ float larger_or_nan(float a, float b) { return a > b || !(a == a) ? a : b; }

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

/* The least factor with which 16 values up to `most_of_16` fit in 8 bits: wasm/quantize.c, factor_for. */
__device__ __forceinline__ int factor_for(float most_of_16, float most) {
  const int factor = __float2int_rz(ceilf(__fdiv_rn(__fmul_rn(most_of_16, (float)MAX_FACTOR), most)));
  return factor < 1 ? 1 : factor > MAX_FACTOR ? MAX_FACTOR : factor;
}

/*
 * Records q8x256 of one row. The scale and the factors are worked out anew from the row (f32[columns]), because the device keeps their product
 * alone; values are the row's as quantize.cu leaves them. A warp writes a record; lane l holds values 8 l to 8 l + 7 of it.
 */
__device__ __forceinline__ void write_q8x256(uint32_t *record, const float *row, const int8_t *values, int columns, int warp, int warps, int lane) {
  for (int block = warp; block < columns / 256; block += warps) {
    const float4 *x = (const float4 *)(row + block * 256) + 2 * lane;
    float most_of_16 = 0;
    for (int k = 0; k < 2; k++) {
      const float4 v = x[k];
      most_of_16 = larger_or_nan(larger_or_nan(most_of_16, fabsf(v.x)), larger_or_nan(fabsf(v.y), larger_or_nan(fabsf(v.z), fabsf(v.w))));
    }
    most_of_16 = larger_or_nan(most_of_16, __shfl_xor_sync(~0u, most_of_16, 1));
    float most = most_of_16;
    for (int lanes = 2; lanes < 32; lanes *= 2) most = larger_or_nan(most, __shfl_xor_sync(~0u, most, lanes));
    const int factor = factor_for(most_of_16, most);
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
    else if (lane == 16) out[80] = __float_as_uint(__fdiv_rn(most, 127.0f * MAX_FACTOR));
  }
}
