/* f16 to f32, four at a time, without ever feeding a subnormal f32 to a multiplication (150 cycles each on some CPUs). */
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
