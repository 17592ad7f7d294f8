/* exp and 2^x for four f32. exp: relative error below 2e-7, 0 below -87.3, e^88.37 above that, NaN stays NaN. */
#pragma once
#include "simd.h"

/*
 * x = n ln2 + r with |r| <= ln2 / 2; e^x = 2^n e^r. ln2 is split in two so that n * high is exact; e^r is its Taylor polynomial of degree 7,
 * whose first omitted term is below 6e-9. The only scaling step is an addition to the exponent.
 */
INLINE v128_t exp_f32x4(v128_t x) {
  const v128_t clamped = wasm_f32x4_min(wasm_f32x4_max(x, wasm_f32x4_splat(-87.3f)), wasm_f32x4_splat(88.37f));
  const v128_t n = wasm_f32x4_nearest(wasm_f32x4_mul(clamped, wasm_f32x4_splat(1.44269504f)));
  const v128_t r = nmadd(n, wasm_f32x4_splat(-2.12194440e-4f), nmadd(n, wasm_f32x4_splat(0.693359375f), clamped));
  v128_t p = wasm_f32x4_splat(1.0f / 5040);
  p = madd(p, r, wasm_f32x4_splat(1.0f / 720));
  p = madd(p, r, wasm_f32x4_splat(1.0f / 120));
  p = madd(p, r, wasm_f32x4_splat(1.0f / 24));
  p = madd(p, r, wasm_f32x4_splat(1.0f / 6));
  p = madd(p, r, wasm_f32x4_splat(0.5f));
  p = madd(wasm_f32x4_mul(p, r), r, r);
  p = wasm_f32x4_add(p, wasm_f32x4_splat(1.0f));
  const v128_t scaled = wasm_i32x4_add(p, wasm_i32x4_shl(wasm_i32x4_trunc_sat_f32x4(n), 23));
  return wasm_v128_andnot(scaled, wasm_f32x4_lt(x, wasm_f32x4_splat(-87.3f)));
}

/*
 * 2^x for x <= 0: relative error below 2e-7, 1 at 0, 0 below -126, NaN stays NaN. x = n + r with |r| <= 1/2; n is in the last bits of
 * x + 1.5 * 2^23; 2^r is a minimax polynomial.
 */
INLINE v128_t exp2_f32x4(v128_t x) {
  const v128_t magic = wasm_f32x4_splat(12582912), shifted = wasm_f32x4_add(x, magic);
  const v128_t r = wasm_f32x4_sub(x, wasm_f32x4_sub(shifted, magic));
  v128_t p = wasm_f32x4_splat(0.00015353362f);
  p = madd(p, r, wasm_f32x4_splat(0.0013398875f));
  p = madd(p, r, wasm_f32x4_splat(0.00961843692f));
  p = madd(p, r, wasm_f32x4_splat(0.0555033237f));
  p = madd(p, r, wasm_f32x4_splat(0.240226477f));
  p = madd(p, r, wasm_f32x4_splat(0.693147182f));
  p = madd(p, r, wasm_f32x4_splat(1));
  const v128_t scaled = wasm_i32x4_add(p, wasm_i32x4_shl(shifted, 23));
  return wasm_v128_andnot(scaled, wasm_f32x4_lt(x, wasm_f32x4_splat(-126)));
}

/* The same for one value. */
INLINE float exp2_f32(float x) { return wasm_f32x4_extract_lane(exp2_f32x4(wasm_f32x4_splat(x)), 0); }

/* 1 / (1 + e^-x) */
INLINE v128_t sigmoid_f32x4(v128_t x) {
  return wasm_f32x4_div(wasm_f32x4_splat(1), wasm_f32x4_add(wasm_f32x4_splat(1), exp_f32x4(wasm_f32x4_neg(x))));
}

/* x / (1 + e^-x) */
INLINE v128_t silu_f32x4(v128_t x) {
  return wasm_f32x4_div(x, wasm_f32x4_add(wasm_f32x4_splat(1), exp_f32x4(wasm_f32x4_neg(x))));
}
