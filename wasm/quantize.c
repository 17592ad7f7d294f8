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

/* rest: f32[16] = what 16 values leave of x: x - step * value. `rest` may be 0. */
static void keep_rest(float *rest, const float *x, v128_t values, float step) {
  if (!rest) return;
  const v128_t low = wasm_i16x8_extend_low_i8x16(values), high = wasm_i16x8_extend_high_i8x16(values);
  const v128_t wide[4] = {wasm_i32x4_extend_low_i16x8(low), wasm_i32x4_extend_high_i16x8(low), wasm_i32x4_extend_low_i16x8(high),
                          wasm_i32x4_extend_high_i16x8(high)};
  UNROLL for (int i = 0; i < 4; i++) {
    const v128_t taken = wasm_f32x4_mul(wasm_f32x4_splat(step), wasm_f32x4_convert_i32x4(wide[i]));
    wasm_v128_store(rest + 4 * i, wasm_f32x4_sub(load(x + 4 * i), taken));
  }
}

static int sum_16(v128_t q) {
  const v128_t s = wasm_i32x4_extadd_pairwise_i16x8(wasm_i16x8_extadd_pairwise_i8x16(q));
  return wasm_i32x4_extract_lane(s, 0) + wasm_i32x4_extract_lane(s, 1) + wasm_i32x4_extract_lane(s, 2) + wasm_i32x4_extract_lane(s, 3);
}

/* One block; rest: f32[32] is what it leaves, or 0. */
static void quantize_q8x32(struct activation_q8x32 *y, float *rest, const float *x) {
  const v128_t most = largest(x, 32), inverse = inverse_scale(most);
  const v128_t low = quantize_16(x, inverse), high = quantize_16(x + 16, inverse);
  wasm_v128_store(y->values, low);
  wasm_v128_store(y->values + 16, high);
  y->scale = wasm_f32x4_extract_lane(most, 0) / 127;
  y->sum = sum_16(low) + sum_16(high);
  keep_rest(rest, x, low, y->scale);
  keep_rest(rest ? rest + 16 : 0, x + 16, high, y->scale);
}

/* The least factor with which 16 values up to `most_of_16` fit in 8 bits, when MAX_FACTOR is what the block's largest value needs. */
static int factor_for(v128_t most_of_16, v128_t most) {
  const v128_t share = wasm_f32x4_div(wasm_f32x4_mul(most_of_16, wasm_f32x4_splat(MAX_FACTOR)), most);
  const int factor = wasm_i32x4_extract_lane(wasm_i32x4_trunc_sat_f32x4(wasm_f32x4_ceil(share)), 0);
  return factor < 1 ? 1 : factor > MAX_FACTOR ? MAX_FACTOR : factor;
}

/* values: i8[16] of x: f32[16]; writes their factor, their sum times it, and what they leave. */
static v128_t quantize_group(const float *x, float *rest, v128_t most, v128_t inverse, float scale, int16_t *factor, int16_t *sum) {
  const int multiple = factor_for(largest(x, 16), most);
  const v128_t values = quantize_16(x, wasm_f32x4_mul(inverse, wasm_f32x4_splat((float)MAX_FACTOR / (float)multiple)));
  *factor = (int16_t)multiple;
  *sum = (int16_t)(sum_16(values) * multiple);
  keep_rest(rest, x, values, scale * (float)multiple);
  return values;
}

/* One block; rest: f32[256] is what it leaves, or 0. */
static void quantize_q8x256(struct activation_q8x256 *y, float *rest, const float *x) {
  const v128_t most = largest(x, 256), inverse = inverse_scale(most);
  const float scale = wasm_f32x4_extract_lane(most, 0) / (127 * MAX_FACTOR);
  y->scale = scale;
  for (int chunk = 0; chunk < 4; chunk++) {
    for (int late = 0; late < 2; late++) {
      const int group = 4 * chunk + 2 * late, at = 64 * chunk + 16 * late;
      const v128_t a = quantize_group(x + at, rest ? rest + at : 0, most, inverse, scale, y->factors + group, y->sums + group);
      const v128_t b = quantize_group(x + at + 32, rest ? rest + at + 32 : 0, most, inverse, scale, y->factors + group + 1, y->sums + group + 1);
      int8_t *values = y->values + 64 * chunk + 32 * late;
      wasm_v128_store(values, wasm_i16x8_shuffle(a, b, 0, 8, 1, 9, 2, 10, 3, 11));
      wasm_v128_store(values + 16, wasm_i16x8_shuffle(a, b, 4, 12, 5, 13, 6, 14, 7, 15));
    }
  }
}

/* Blocks of a row to one q8 record, or to the two of a q16 record. */
static void quantize_row_x32(struct activation_q8x32 *y, const float *x, int columns, int digits) {
  const int blocks = columns / 32;
  float rest[32];
  for (int i = 0; i < blocks; i++, x += 32) {
    quantize_q8x32(y + i, digits == Q16_DIGITS ? rest : 0, x);
    if (digits == Q16_DIGITS) quantize_q8x32(y + blocks + i, 0, rest);
  }
}
static void quantize_row_x256(struct activation_q8x256 *y, const float *x, int columns, int digits) {
  const int blocks = columns / 256;
  float rest[256];
  for (int i = 0; i < blocks; i++, x += 256) {
    quantize_q8x256(y + i, digits == Q16_DIGITS ? rest : 0, x);
    if (digits == Q16_DIGITS) quantize_q8x256(y + blocks + i, 0, rest);
  }
}

int record_bytes(int activation, int columns) {
  switch (activation) {
    case ACTIVATION_F32: return columns * 4;
    case ACTIVATION_Q8X32: return columns / 32 * (int)sizeof(struct activation_q8x32);
    case ACTIVATION_Q8X256: return columns / 256 * (int)sizeof(struct activation_q8x256);
    case ACTIVATION_Q16X32: return Q16_DIGITS * record_bytes(ACTIVATION_Q8X32, columns);
    case ACTIVATION_Q16X256: return Q16_DIGITS * record_bytes(ACTIVATION_Q8X256, columns);
    default: return 0;
  }
}

int quantize(int activation, uint8_t *records, const float *x, int columns, int tokens) {
  if (activation < ACTIVATION_F32 || activation > ACTIVATION_Q16X256) return STATUS_FORMAT;
  const int is_x32 = activation == ACTIVATION_Q8X32 || activation == ACTIVATION_Q16X32, digits = activation >= ACTIVATION_Q16X32 ? Q16_DIGITS : 1;
  const int block = activation == ACTIVATION_F32 ? 1 : is_x32 ? 32 : 256;
  if (columns <= 0 || columns % block != 0 || tokens < 0) return STATUS_SHAPE;
  const size_t bytes = (size_t)record_bytes(activation, columns);
  for (int t = 0; t < tokens; t++, records += bytes, x += columns) {
    if (activation == ACTIVATION_F32) __builtin_memcpy(records, x, bytes);
    else if (is_x32) quantize_row_x32((struct activation_q8x32 *)records, x, columns, digits);
    else quantize_row_x256((struct activation_q8x256 *)records, x, columns, digits);
  }
  return STATUS_OK;
}
