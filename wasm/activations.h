/*
 * Activation records: what `quantize` writes and the dot products read. A record is a row of blocks, values and scale side by side, so that a
 * kernel walks it with one pointer.
 *
 * A q16 record is two q8 records one behind the other, its digits: x quantised, then what that left of x, quantised with scales of its own. A product
 * with it is the sum of the products with both (docs/decisions/0011).
 */
#pragma once
#include <stdint.h>

/* q8x32: x = scale * value */
struct activation_q8x32 {
  int8_t values[32];
  float scale;
  int32_t sum; /* of the values */
};

/*
 * q8x32 for signed weights of eight bits; made in scratch by matmul. For products of 16 bits: values i16[32], each four in the order 0 2 1 3, as
 * shifts split weights. For products of a signed byte and 7 bits: i8[32], max(value, 0), then i8[32], max(-value, 0).
 */
struct activation_wide {
  int8_t values[64];
  float scale;
  int32_t sum;
};

/*
 * q8x256: x = scale * factor * value, one factor of 1 to MAX_FACTOR for each 16 values: a block's integer products still add up exactly, and small
 * values beside a large one keep most of their precision (docs/decisions/0004).
 *
 * Within each 64 values a0..a31 b0..b31 the order is a0 a1 b0 b1 a2 a3 b2 b3 ..., so that an i16 pair of products holds
 * one sub-block of 32 in its low and another in its high half: the scales of both are then applied by one multiply-add.
 * sums and factors: of 16 values each, per 64 values: a0..a15, b0..b15, a16..a31, b16..b31.
 */
struct activation_q8x256 {
  int8_t values[256];
  int16_t sums[16]; /* of the values, times the factor: two of them still add up in 16 bits */
  int16_t factors[16];
  float scale;
};

enum { MAX_FACTOR = 8, Q16_DIGITS = 2 };

_Static_assert(sizeof(struct activation_q8x32) == 40, "q8x32");
_Static_assert(sizeof(struct activation_wide) == 72, "wide");
_Static_assert(sizeof(struct activation_q8x256) == 324, "q8x256");
_Static_assert(2 * 16 * 127 * MAX_FACTOR <= INT16_MAX, "sums of 32");
