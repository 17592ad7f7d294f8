/*
 * The vectors that decoding weights needs. They live in memory, are read through `volatile` once per kernel call and handed down in a struct:
 * written as literals, LLVM would propagate them and V8 rebuild them inside the loop, which costs a fifth of the speed and can keep V8 from
 * using 256-bit vectors. They are never written.
 */
#pragma once
#include "blocks.h"
#include "simd.h"

struct constants {
  v128_t nibble;        /* u8: 0x0f */
  v128_t fifth;         /* u8: 0x10 */
  v128_t sixth;         /* u8: 0x30 */
  v128_t iq4_nl;        /* i8: IQ4_NL's values by nibble */
  v128_t sign;          /* i32: the sign bit */
  v128_t magnitude;     /* i32: an f16's other bits, shifted by 13, below a sign extension */
  v128_t bias;          /* i32: 112 << 23, f32's exponent bias less f16's */
  v128_t bias_plus_one; /* i32: 113 << 23 */
  v128_t least;         /* f32: 2^-14, the smallest normal f16 */
};

#define ALL_LANES(x) {(int)(x), (int)(x), (int)(x), (int)(x)}

static const volatile struct constants CONSTANTS = {
    .nibble = ALL_LANES(0x0f0f0f0f),
    .fifth = ALL_LANES(0x10101010),
    .sixth = ALL_LANES(0x30303030),
    .iq4_nl = (v128_t)(__i8x16){IQ4_NL_VALUES},
    .sign = ALL_LANES(0x80000000),
    .magnitude = ALL_LANES(0x0fffffff),
    .bias = ALL_LANES(112 << 23),
    .bias_plus_one = ALL_LANES(113 << 23),
    .least = ALL_LANES(0x38800000),
};

INLINE struct constants read_constants(void) {
  return (struct constants){CONSTANTS.nibble, CONSTANTS.fifth, CONSTANTS.sixth,         CONSTANTS.iq4_nl, CONSTANTS.sign,
                            CONSTANTS.magnitude, CONSTANTS.bias, CONSTANTS.bias_plus_one, CONSTANTS.least};
}
