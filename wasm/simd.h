/*
 * The few vector operations that the kernels are made of, for all builds: relaxed SIMD when the compiler has it on, plain SIMD otherwise.
 * Integer results are the same in all; `madd` rounds once in the relaxed builds (on CPUs with FMA) and twice in the plain one.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <wasm_simd128.h>

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("clang loop unroll(full)")
#define NO_UNROLL _Pragma("clang loop unroll(disable)")

/* i16x8: x[2i] * q[2i] + x[2i+1] * q[2i+1] of signed bytes x and bytes q in 0..127. Callers keep the sum inside i16. */
INLINE v128_t dot_i7(v128_t x, v128_t q) {
#ifdef __wasm_relaxed_simd__
  return wasm_i16x8_relaxed_dot_i8x16_i7x16(x, q);
#else
  const v128_t even = wasm_i16x8_mul(wasm_i16x8_shr(wasm_i16x8_shl(x, 8), 8), wasm_v128_and(q, wasm_i16x8_splat(0xff)));
  const v128_t odd = wasm_i16x8_mul(wasm_i16x8_shr(x, 8), wasm_u16x8_shr(q, 8));
  return wasm_i16x8_add(even, odd);
#endif
}

/*
 * The build for CPUs that add four products of bytes to an i32 in one instruction (AVX-VNNI) sums in i32 where the others sum in i16. Every sum is
 * exact in both, so results are the same. Elsewhere that operation is three instructions.
 */
#ifdef DOT_BUILD
enum { SUMS_IN_I32 = 1 };
/* i32x4: sum + x[4i] * q[4i] + ... + x[4i+3] * q[4i+3] of signed bytes x and bytes q in 0..127. */
INLINE v128_t dot_i7_add(v128_t x, v128_t q, v128_t sum) { return wasm_i32x4_relaxed_dot_i8x16_i7x16_add(x, q, sum); }
#else
enum { SUMS_IN_I32 = 0 };
INLINE v128_t dot_i7_add(v128_t x, v128_t q, v128_t sum) { return wasm_i32x4_add(sum, wasm_i32x4_extadd_pairwise_i16x8(dot_i7(x, q))); }
#endif

/* table[index] of 16 bytes; every index is in 0..15. */
INLINE v128_t lookup(v128_t table, v128_t index) {
#ifdef __wasm_relaxed_simd__
  return wasm_i8x16_relaxed_swizzle(table, index);
#else
  return wasm_i8x16_swizzle(table, index);
#endif
}

/* c + a * b */
INLINE v128_t madd(v128_t a, v128_t b, v128_t c) {
#ifdef __wasm_relaxed_simd__
  return wasm_f32x4_relaxed_madd(a, b, c);
#else
  return wasm_f32x4_add(c, wasm_f32x4_mul(a, b));
#endif
}

/* c - a * b */
INLINE v128_t nmadd(v128_t a, v128_t b, v128_t c) {
#ifdef __wasm_relaxed_simd__
  return wasm_f32x4_relaxed_nmadd(a, b, c);
#else
  return wasm_f32x4_sub(c, wasm_f32x4_mul(a, b));
#endif
}

/* Sum of four lanes, in one fixed order. */
INLINE float sum_lanes(v128_t v) {
  return (wasm_f32x4_extract_lane(v, 0) + wasm_f32x4_extract_lane(v, 2)) + (wasm_f32x4_extract_lane(v, 1) + wasm_f32x4_extract_lane(v, 3));
}

INLINE float max_lanes(v128_t v) {
  const v128_t pair = wasm_f32x4_max(v, wasm_i32x4_shuffle(v, v, 2, 3, 0, 1));
  return wasm_f32x4_extract_lane(wasm_f32x4_max(pair, wasm_i32x4_shuffle(pair, pair, 1, 0, 3, 2)), 0);
}

INLINE v128_t load(const void *p) { return wasm_v128_load(p); }

/* Two vectors side by side. Both are worked out before either is stored: V8 makes no 256-bit operations of loads with a store between them. */
INLINE void store_pair(void *p, v128_t low, v128_t high) {
  wasm_v128_store(p, low);
  wasm_v128_store((uint8_t *)p + 16, high);
}
