/* Floats as unsigned numbers, for choosing the largest. */
#pragma once
#include <stdint.h>

/* Orders as the float does, both zeros alike; 0 for NaN alone, so that it comes last. */
__device__ __forceinline__ uint32_t ordered(float value) {
  if (!(value == value)) return 0;
  const uint32_t bits = __float_as_uint(value + 0.0f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
