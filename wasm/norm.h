/* 1 / sqrt(mean(x^2) + epsilon): four lanes of two sums, always added in the same order. */
#pragma once
#include "simd.h"

INLINE float inverse_rms(const float *x, int columns, float epsilon) {
  v128_t even = wasm_f32x4_splat(0), odd = even;
  int i = 0;
  for (; i + 8 <= columns; i += 8) {
    const v128_t a = load(x + i), b = load(x + i + 4);
    even = madd(a, a, even);
    odd = madd(b, b, odd);
  }
  if (i < columns) even = madd(load(x + i), load(x + i), even);
  const float mean = sum_lanes(wasm_f32x4_add(even, odd)) / (float)columns;
  return 1 / __builtin_sqrtf(mean + epsilon);
}
