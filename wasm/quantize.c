/* quantize, record_bytes: activations to the form that a weight format's dot product wants (activations.h). */
#include "activations.h"
#include "formats.h"
#include "kernels.h"
#include "simd.h"

/*
 * Largest |x| of `count` values; NaN when any is NaN. Bits without their sign are compared: in the order of the values, and NaN above all. An f32 maximum
 * that hands NaN on takes V8 eight instructions.
 */
static v128_t largest(const float *x, int count) {
  v128_t most = wasm_i32x4_splat(0);
  for (int i = 0; i < count; i += 4) most = wasm_i32x4_max(most, wasm_f32x4_abs(load(x + i)));
  most = wasm_i32x4_max(most, wasm_i32x4_shuffle(most, most, 2, 3, 0, 1));
  return wasm_i32x4_max(most, wasm_i32x4_shuffle(most, most, 1, 0, 3, 2));
}

/*
 * 127 / largest, or 0 where that would overflow or has no meaning: then every value becomes 0, and a NaN or infinite scale makes every product
 * NaN, which is how a broken activation reaches the logits.
 */
static v128_t inverse_scale(v128_t most) {
  return wasm_v128_and(wasm_f32x4_div(wasm_f32x4_splat(127), most), wasm_f32x4_gt(most, wasm_f32x4_splat(1e-35f)));
}

/*
 * 16 values x * inverse, at most 127, rounded to nearest even; NaN becomes 0. Added to 1.5 * 2^23, whose last bit counts in ones, a value is rounded by the
 * addition, and the sum's bits are the integer.
 */
static v128_t quantize_16(const float *x, v128_t inverse) {
  const v128_t magic = wasm_f32x4_splat(0x1.8p23f);
  v128_t q[4];
  UNROLL for (int i = 0; i < 4; i++) {
    const v128_t sum = wasm_f32x4_add(wasm_f32x4_mul(load(x + 4 * i), inverse), magic);
    q[i] = wasm_v128_and(wasm_i32x4_sub(sum, magic), wasm_f32x4_eq(sum, sum));
  }
  return wasm_i8x16_narrow_i16x8(wasm_i16x8_narrow_i32x4(q[0], q[1]), wasm_i16x8_narrow_i32x4(q[2], q[3]));
}

static int sum_16(v128_t q) {
  const v128_t s = wasm_i32x4_extadd_pairwise_i16x8(wasm_i16x8_extadd_pairwise_i8x16(q));
  return wasm_i32x4_extract_lane(s, 0) + wasm_i32x4_extract_lane(s, 1) + wasm_i32x4_extract_lane(s, 2) + wasm_i32x4_extract_lane(s, 3);
}

static void quantize_q8x32(struct activation_q8x32 *y, const float *x, int columns) {
  for (int i = 0; i < columns; i += 32, x += 32, y++) {
    const v128_t most = largest(x, 32), inverse = inverse_scale(most);
    const v128_t low = quantize_16(x, inverse), high = quantize_16(x + 16, inverse);
    wasm_v128_store(y->values, low);
    wasm_v128_store(y->values + 16, high);
    y->scale = wasm_f32x4_extract_lane(most, 0) / 127;
    y->sum = sum_16(low) + sum_16(high);
  }
}

/* The least factor with which 16 values up to `most_of_16` fit in 8 bits, when MAX_FACTOR is what the block's largest value needs. */
static int factor_for(v128_t most_of_16, v128_t most) {
  const v128_t share = wasm_f32x4_div(wasm_f32x4_mul(most_of_16, wasm_f32x4_splat(MAX_FACTOR)), most);
  const int factor = wasm_i32x4_extract_lane(wasm_i32x4_trunc_sat_f32x4(wasm_f32x4_ceil(share)), 0);
  return factor < 1 ? 1 : factor > MAX_FACTOR ? MAX_FACTOR : factor;
}

/* values: i8[16] of x: f32[16]; writes their factor and their sum times it. */
static v128_t quantize_group(const float *x, v128_t most, v128_t inverse, int16_t *factor, int16_t *sum) {
  const int multiple = factor_for(largest(x, 16), most);
  const v128_t values = quantize_16(x, wasm_f32x4_mul(inverse, wasm_f32x4_splat((float)MAX_FACTOR / (float)multiple)));
  *factor = (int16_t)multiple;
  *sum = (int16_t)(sum_16(values) * multiple);
  return values;
}

static void quantize_q8x256(struct activation_q8x256 *y, const float *x, int columns) {
  for (int i = 0; i < columns; i += 256, y++) {
    const v128_t most = largest(x, 256), inverse = inverse_scale(most);
    y->scale = wasm_f32x4_extract_lane(most, 0) / (127 * MAX_FACTOR);
    for (int chunk = 0; chunk < 4; chunk++, x += 64) {
      for (int late = 0; late < 2; late++) {
        const int group = 4 * chunk + 2 * late;
        const v128_t a = quantize_group(x + 16 * late, most, inverse, y->factors + group, y->sums + group);
        const v128_t b = quantize_group(x + 32 + 16 * late, most, inverse, y->factors + group + 1, y->sums + group + 1);
        int8_t *values = y->values + 64 * chunk + 32 * late;
        wasm_v128_store(values, wasm_i16x8_shuffle(a, b, 0, 8, 1, 9, 2, 10, 3, 11));
        wasm_v128_store(values + 16, wasm_i16x8_shuffle(a, b, 4, 12, 5, 13, 6, 14, 7, 15));
      }
    }
  }
}

int record_bytes(int activation, int columns) {
  switch (activation) {
    case ACTIVATION_F32: return columns * 4;
    case ACTIVATION_Q8X32: return columns / 32 * (int)sizeof(struct activation_q8x32);
    case ACTIVATION_Q8X256: return columns / 256 * (int)sizeof(struct activation_q8x256);
    default: return 0;
  }
}

int quantize(int activation, uint8_t *records, const float *x, int columns, int tokens) {
  if (activation < ACTIVATION_F32 || activation > ACTIVATION_Q8X256) return STATUS_FORMAT;
  const int block = activation == ACTIVATION_F32 ? 1 : activation == ACTIVATION_Q8X32 ? 32 : 256;
  if (columns <= 0 || columns % block != 0 || tokens < 0) return STATUS_SHAPE;
  const size_t bytes = (size_t)record_bytes(activation, columns);
  for (int t = 0; t < tokens; t++, records += bytes, x += columns) {
    if (activation == ACTIVATION_F32) __builtin_memcpy(records, x, bytes);
    else if (activation == ACTIVATION_Q8X32) quantize_q8x32((struct activation_q8x32 *)records, x, columns);
    else quantize_q8x256((struct activation_q8x256 *)records, x, columns);
  }
  return STATUS_OK;
}
