/*
 * Activations to 8 bits, with the numbers of wasm/quantize.c. A warp takes 256 columns, a lane 8 of them: 16 columns are two lanes, 32 four, 256 the
 * warp.
 */
#pragma once
#include "engine.cuh"

enum { LANE_COLUMNS = 8, WARP_COLUMNS = 256, MOST_FACTOR = 8, QUANTIZE_WARPS = 4 };

/* The largest of `lanes` neighbouring lanes' |x|, as bits: the order of unsigned integers puts NaN above everything, where it must stay. */
template <int LANES> static __device__ __forceinline__ uint32_t most_of_lanes(uint32_t most) {
  UNROLL for (int stride = LANES / 2; stride > 0; stride /= 2) most = max(most, __shfl_xor_sync(~0u, most, stride));
  return most;
}

/* 127 / most, or 0 where that would overflow or has no meaning: every value is 0 then, and a scale that is not finite tells. */
static __device__ __forceinline__ float inverse_scale(float most) { return most > 1e-35f ? __fdiv_rn(127.0f, most) : 0; }

/* Stores a lane's 8 values as bytes; their sum over the two lanes of a group. x becomes what the values, times `scale`, leave of it. */
static __device__ __forceinline__ int store_values(int8_t *values, float (&x)[LANE_COLUMNS], float inverse, float scale, bool active) {
  uint32_t words[2] = {0, 0};
  int sum = 0;
  UNROLL for (int i = 0; i < LANE_COLUMNS; i++) {
    const int value = __float2int_rn(__fmul_rn(x[i], inverse));
    sum += value;
    words[i / 4] |= (uint32_t)(value & 255) << 8 * (i % 4);
    x[i] = __fsub_rn(x[i], __fmul_rn(scale, (float)value));
  }
  if (active) *(uint2 *)values = make_uint2(words[0], words[1]);
  return sum + __shfl_xor_sync(~0u, sum, 1);
}

/* What belongs to the group of 16 that begins at column `column` of row t. */
static __device__ __forceinline__ void store_group(const quantized &y, size_t row, int column, int columns, float scale, int sum) {
  const size_t group = (row * (size_t)columns + (size_t)column) / GROUP;
  y.scales[group] = scale;
  y.sums[group] = __fmul_rn(scale, (float)sum);
}

/* The largest of a lane's own |x|, as bits. */
static __device__ __forceinline__ uint32_t most_of_own(const float (&x)[LANE_COLUMNS]) {
  uint32_t own = 0;
  UNROLL for (int i = 0; i < LANE_COLUMNS; i++) own = max(own, __float_as_uint(x[i]) & 0x7fffffff);
  return own;
}

/* One digit of a lane's 8 values to row `row` of y; x becomes what is left for the next. */
static __device__ __forceinline__ void store_q8x32(const quantized &y, float (&x)[LANE_COLUMNS], size_t row, int column, int columns, bool active) {
  const float most = __uint_as_float(most_of_lanes<4>(most_of_own(x))), scale = __fdiv_rn(most, 127.0f);
  const int sum = store_values(y.values + row * (size_t)columns + (size_t)column, x, inverse_scale(most), scale, active);
  if (active && column % GROUP == 0) store_group(y, row, column, columns, scale, sum);
}
static __device__ __forceinline__ void store_q8x256(const quantized &y, float (&x)[LANE_COLUMNS], size_t row, int column, int columns, bool active) {
  const uint32_t own = most_of_own(x);
  const float most = __uint_as_float(most_of_lanes<32>(own)), most_of_16 = __uint_as_float(most_of_lanes<2>(own));
  const int share = (int)ceilf(__fdiv_rn(__fmul_rn(most_of_16, MOST_FACTOR), most)); /* NaN becomes 0 */
  const float factor = (float)min(max(share, 1), (int)MOST_FACTOR);
  const float inverse = __fmul_rn(inverse_scale(most), __fdiv_rn(MOST_FACTOR, factor));
  const float scale = __fmul_rn(__fdiv_rn(most, 127.0f * MOST_FACTOR), factor);
  const int sum = store_values(y.values + row * (size_t)columns + (size_t)column, x, inverse, scale, active);
  if (active && column % GROUP == 0) store_group(y, row, column, columns, scale, sum);
}

/* Writes the given forms of a lane's 8 values; the whole warp calls. Lanes behind the last column have zeros and are not active. */
static __device__ __forceinline__ void store_forms(const activations &y, int forms, const float (&x)[LANE_COLUMNS], size_t row, int column, int columns, bool active) {
  if ((forms & FORM_ROWS) && active) {
    float4 *rows = (float4 *)(y.rows + row * (size_t)columns + (size_t)column);
    rows[0] = make_float4(x[0], x[1], x[2], x[3]);
    rows[1] = make_float4(x[4], x[5], x[6], x[7]);
  }
  const size_t first = row * (size_t)y.digits, end = first + (size_t)y.digits;
  float rest[LANE_COLUMNS];
  if (forms & FORM_Q8X32) {
    UNROLL for (int i = 0; i < LANE_COLUMNS; i++) rest[i] = x[i];
#pragma unroll 1
    for (size_t digit = first; digit < end; digit++) store_q8x32(y.q8x32, rest, digit, column, columns, active);
  }
  if (forms & FORM_Q8X256) {
    UNROLL for (int i = 0; i < LANE_COLUMNS; i++) rest[i] = x[i];
#pragma unroll 1
    for (size_t digit = first; digit < end; digit++) store_q8x256(y.q8x256, rest, digit, column, columns, active);
  }
}

static __device__ __forceinline__ void load_lane(float (&x)[LANE_COLUMNS], const float *row, int column, bool active) {
  const float4 zero = make_float4(0, 0, 0, 0);
  const float4 a = active ? *(const float4 *)(row + column) : zero, b = active ? *(const float4 *)(row + column + 4) : zero;
  x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w, x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
}
