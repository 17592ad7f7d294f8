/*
 * The vectors that decoding weights needs. They live in memory, are read through `volatile` once per kernel call and handed down in a struct:
 * written as literals, LLVM would propagate them and V8 rebuild them inside the loop, which costs a fifth of the speed and can keep V8 from
 * using 256-bit vectors. They are never written.
 */
#pragma once
#include "blocks.h"
#include "simd.h"

struct constants {
  v128_t zero;          /* i32: 0, which the compiler does not know */
  v128_t nibble;        /* u8: 0x0f */
  v128_t high_nibble;   /* u8: 0xf0 */
  v128_t fifth;         /* u8: 0x10 */
  v128_t sixth;         /* u8: 0x30 */
  v128_t pair;          /* u8: 0x03 */
  v128_t top_pair;      /* u8: 0xc0 */
  v128_t three;         /* u8: 0x07 */
  v128_t third;         /* u8: 0x04 */
  v128_t scale_tops;    /* i16: 0x30 */
  v128_t thirty_two;    /* i16: 32 */
  v128_t low_half;      /* i32: 0xffff */
  v128_t iq4_nl;        /* i8: IQ4_NL's values by nibble */
  v128_t iq4_xs;        /* u8: the same plus 127 */
  v128_t mxfp4;         /* u8: MXFP4's values by nibble, plus 12 */
  v128_t f16_even;      /* i16: 0x2000, 0: times two f16, the first is where f32 has its exponent and mantissa */
  v128_t f16_bits;      /* i32: an f16's bits there */
  v128_t f16_up;        /* f32: 2^48 */
  v128_t sign;          /* i32: the sign bit */
  v128_t magnitude;     /* i32: an f16's other bits, shifted by 13, below a sign extension */
  v128_t bias;          /* i32: 112 << 23, f32's exponent bias less f16's */
  v128_t bias_plus_one; /* i32: 113 << 23 */
  v128_t least;         /* f32: 2^-14, the smallest normal f16 */
  v128_t magic;         /* f32: 1.5 * 2^23, whose last bits count in ones */
};

enum { MAGIC_BITS = 0x4b400000 };

#define ALL_LANES(x) {(int)(x), (int)(x), (int)(x), (int)(x)}

static const volatile struct constants CONSTANTS = {
    .zero = ALL_LANES(0),
    .nibble = ALL_LANES(0x0f0f0f0f),
    .high_nibble = ALL_LANES(0xf0f0f0f0),
    .fifth = ALL_LANES(0x10101010),
    .sixth = ALL_LANES(0x30303030),
    .pair = ALL_LANES(0x03030303),
    .top_pair = ALL_LANES(0xc0c0c0c0),
    .three = ALL_LANES(0x07070707),
    .third = ALL_LANES(0x04040404),
    .scale_tops = ALL_LANES(0x00300030),
    .thirty_two = ALL_LANES(0x00200020),
    .low_half = ALL_LANES(0xffff),
    .iq4_nl = (v128_t)(__i8x16){IQ4_NL_VALUES(0)},
    .iq4_xs = (v128_t)(__u8x16){IQ4_NL_VALUES(127)},
    .mxfp4 = (v128_t)(__u8x16){MXFP4_VALUES(12)},
    .f16_even = ALL_LANES(0x2000),
    .f16_bits = ALL_LANES(0x8fffe000),
    .f16_up = ALL_LANES(0x57800000),
    .sign = ALL_LANES(0x80000000),
    .magnitude = ALL_LANES(0x0fffffff),
    .bias = ALL_LANES(112 << 23),
    .bias_plus_one = ALL_LANES(113 << 23),
    .least = ALL_LANES(0x38800000),
    .magic = ALL_LANES(MAGIC_BITS),
};

INLINE struct constants read_constants(void) {
  const volatile struct constants *c = &CONSTANTS;
  return (struct constants){c->zero,     c->nibble,     c->high_nibble, c->fifth,  c->sixth,  c->pair,     c->top_pair, c->three,
                            c->third,    c->scale_tops, c->thirty_two,  c->low_half, c->iq4_nl, c->iq4_xs, c->mxfp4,    c->f16_even,
                            c->f16_bits, c->f16_up,     c->sign,        c->magnitude, c->bias,  c->bias_plus_one, c->least, c->magic};
}
