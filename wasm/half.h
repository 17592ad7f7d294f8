/* f16 to f32 and back, four at a time, without ever feeding a subnormal f32 to a multiplication (150 cycles each on some CPUs). */
#pragma once
#include "constants.h"

/*
 * Four finite f16 bit patterns, sign-extended to i32 lanes, as f32. With a = |h| moved to f32's place, adding the difference of the exponent biases
 * gives the right value for normal numbers and one that is too large for subnormal ones; adding one more and subtracting 2^-14 gives the right
 * value for subnormal numbers and one that is too large for normal ones. So the answer is the smaller; both are >= 0, so integers compare alike.
 */
INLINE v128_t f16_to_f32(v128_t h, struct constants constants) {
  const v128_t shifted = wasm_i32x4_shl(h, 13), a = wasm_v128_and(shifted, constants.magnitude);
  const v128_t normal = wasm_i32x4_add(a, constants.bias);
  const v128_t subnormal = wasm_f32x4_sub(wasm_i32x4_add(a, constants.bias_plus_one), constants.least);
  return wasm_v128_or(wasm_i32x4_min(normal, subnormal), wasm_v128_and(shifted, constants.sign));
}

/* Four consecutive finite f16: scales, weights. */
INLINE v128_t load_f16x4(const uint8_t *p, struct constants constants) { return f16_to_f32(wasm_i32x4_load16x4(p), constants); }

/* The same for any f16: infinities and NaN stay what they are. */
INLINE v128_t load_any_f16x4(const uint8_t *p, struct constants constants) {
  const v128_t h = wasm_i32x4_load16x4(p);
  const v128_t exponent = wasm_v128_and(h, wasm_i32x4_splat(0x7c00));
  const v128_t is_special = wasm_i32x4_eq(exponent, wasm_i32x4_splat(0x7c00));
  return wasm_v128_or(f16_to_f32(h, constants), wasm_v128_and(is_special, wasm_i32x4_splat(0x7f800000)));
}

/* Four f32 as f16 bit patterns in i32 lanes, rounded to nearest even; too large becomes infinite, NaN stays NaN. */
INLINE v128_t f32_to_f16(v128_t f) {
  const v128_t a = wasm_v128_and(f, wasm_i32x4_splat(0x7fffffff));
  /* Subnormal result: adding 0.5 leaves the rounded multiple of 2^-24 in the low mantissa bits. */
  const v128_t small = wasm_i32x4_sub(wasm_f32x4_add(a, wasm_f32x4_splat(0.5f)), wasm_f32x4_splat(0.5f));
  const v128_t odd = wasm_v128_and(wasm_u32x4_shr(a, 13), wasm_i32x4_splat(1));
  const v128_t rounded = wasm_i32x4_add(wasm_i32x4_add(a, odd), wasm_i32x4_splat(0xfff - (112 << 23)));
  const v128_t normal = wasm_u32x4_shr(rounded, 13);
  const v128_t nan = wasm_v128_and(wasm_i32x4_gt(a, wasm_i32x4_splat(0x7f800000)), wasm_i32x4_splat(0x200));
  const v128_t large = wasm_v128_or(nan, wasm_i32x4_splat(0x7c00));
  const v128_t finite = wasm_v128_bitselect(small, normal, wasm_i32x4_lt(a, wasm_i32x4_splat(113 << 23)));
  const v128_t bits = wasm_v128_bitselect(large, finite, wasm_i32x4_gt(a, wasm_i32x4_splat(0x477fefff)));
  return wasm_v128_or(bits, wasm_v128_and(wasm_u32x4_shr(f, 16), wasm_i32x4_splat(0x8000)));
}
