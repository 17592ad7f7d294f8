/*
 * Tiles of float weights.
 *
 * F16 and BF16 run on 16-bit tensor cores: every number is split into two bf16, high + low, so that a product keeps 16 bits of each activation and
 * all bits of the weight, over the whole range of f32. Sums of 32 columns leave the tensor cores, whose additions truncate, for f32 additions that
 * round. F32 weights (the router) are multiplied as they are.
 */
#include <cuda_bf16.h>
#include "mma.cuh"
#include "tiles.cuh"

namespace {

enum { FLOAT_TOKENS = 64, FLOAT_CHUNK = 32 };
/* Elements from row to row of bf16: 80 bytes, so that eight rows' 16 bytes lie in different banks. */
enum { SPLIT_STRIDE = FLOAT_CHUNK + 8 };

__device__ __forceinline__ const uint8_t *matrix_of(const tile_job &job, const tile_place &place) {
  return place.matrix ? job.weights[1] + place.expert * job.expert_bytes[1] : job.weights[0] + place.expert * job.expert_bytes[0];
}

/* high + low: two numbers in one word each, the first in the low half. */
__device__ __forceinline__ void split(float a, float b, uint32_t &high, uint32_t &low) {
  const __nv_bfloat162 h = __floats2bfloat162_rn(a, b);
  const __nv_bfloat162 l = __floats2bfloat162_rn(a - __low2float(h), b - __high2float(h));
  high = *(const uint32_t *)&h;
  low = *(const uint32_t *)&l;
}

/* One operand of a chunk in shared memory. */
template <int ROWS> struct split_tile {
  alignas(16) uint16_t high[ROWS * SPLIT_STRIDE];
  alignas(16) uint16_t low[ROWS * SPLIT_STRIDE];
};

/* sums: rows 16 m and on, tokens 8 n and on, as mma.cuh's d. HALF: weights are f16, otherwise bf16, which have no low part. */
template <bool HALF> __global__ void __launch_bounds__(TILE_THREADS, 2) split_tile_product(const __grid_constant__ tile_job job) {
  __shared__ split_tile<TILE_ROWS> w;
  __shared__ split_tile<FLOAT_TOKENS> x;
  const tile_place place = place_of(job, TILE_ROWS);
  if (place.count <= 0) return;

  /* Each thread brings 16 weights of one row and 8 activations of one token. */
  const int w_at = threadIdx.x / 2 * SPLIT_STRIDE + threadIdx.x % 2 * 16, x_at = threadIdx.x / 4 * SPLIT_STRIDE + threadIdx.x % 4 * 8;
  const int row = min(place.row + (int)threadIdx.x / 2, job.rows - 1);
  const uint4 *w_from = (const uint4 *)(matrix_of(job, place) + 2 * ((int64_t)row * job.columns + threadIdx.x % 2 * 16));
  const float4 *x_from = (const float4 *)(job.x.rows + (int64_t)x_row_of(job, place, threadIdx.x / 4) * job.columns + threadIdx.x % 4 * 8);

  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warp_row = warp % 4 * 32, warp_token = warp / 4 * 32;
  const int a_at = (warp_row + lane % 16) * SPLIT_STRIDE + lane / 16 * 8;
  const int b_at = (warp_token + lane / 16 * 8 + lane % 8) * SPLIT_STRIDE + lane / 8 % 2 * 8;
  float sums[2][4][4] = {};
  for (int column = 0; column < job.columns; column += FLOAT_CHUNK, w_from += FLOAT_CHUNK / 8, x_from += FLOAT_CHUNK / 4) {
    /* Columns that do not exist are zeros on both sides; there are whole eights of them. */
    uint4 weights[2] = {};
    float4 rows[2] = {};
    UNROLL for (int i = 0; i < 2; i++) {
      if (column + (int)threadIdx.x % 2 * 16 + 8 * i < job.columns) weights[i] = w_from[i];
      if (column + (int)threadIdx.x % 4 * 8 < job.columns) rows[i] = x_from[i];
    }
    __syncthreads();
    UNROLL for (int i = 0; i < 2; i++) {
      uint4 high = weights[i], low;
      if constexpr (HALF) {
        const __half2 *halves = (const __half2 *)&weights[i];
        split(__low2float(halves[0]), __high2float(halves[0]), high.x, low.x);
        split(__low2float(halves[1]), __high2float(halves[1]), high.y, low.y);
        split(__low2float(halves[2]), __high2float(halves[2]), high.z, low.z);
        split(__low2float(halves[3]), __high2float(halves[3]), high.w, low.w);
        *(uint4 *)(w.low + w_at + 8 * i) = low;
      }
      *(uint4 *)(w.high + w_at + 8 * i) = high;
      uint2 x_high, x_low;
      split(rows[i].x, rows[i].y, x_high.x, x_low.x);
      split(rows[i].z, rows[i].w, x_high.y, x_low.y);
      *(uint2 *)(x.high + x_at + 4 * i) = x_high;
      *(uint2 *)(x.low + x_at + 4 * i) = x_low;
    }
    __syncthreads();

    float parts[2][4][4] = {};
    UNROLL for (int k = 0; k < FLOAT_CHUNK; k += 16) {
      uint32_t b_high[2][4], b_low[2][4];
      UNROLL for (int n = 0; n < 2; n++) {
        load_matrices(b_high[n], shared_address(x.high + b_at + n * 16 * SPLIT_STRIDE + k));
        load_matrices(b_low[n], shared_address(x.low + b_at + n * 16 * SPLIT_STRIDE + k));
      }
      UNROLL for (int m = 0; m < 2; m++) {
        uint32_t a_high[4], a_low[4];
        load_matrices(a_high, shared_address(w.high + a_at + m * 16 * SPLIT_STRIDE + k));
        if constexpr (HALF) load_matrices(a_low, shared_address(w.low + a_at + m * 16 * SPLIT_STRIDE + k));
        UNROLL for (int n = 0; n < 4; n++) {
          if constexpr (HALF) multiply_bf16(parts[m][n], a_low, b_high[n / 2] + n % 2 * 2);
          multiply_bf16(parts[m][n], a_high, b_low[n / 2] + n % 2 * 2);
          multiply_bf16(parts[m][n], a_high, b_high[n / 2] + n % 2 * 2);
        }
      }
    }
    UNROLL for (int i = 0; i < 32; i++) sums[i / 16][i / 4 % 4][i % 4] += parts[i / 16][i / 4 % 4][i % 4];
  }

  store_sums(job, place, 1, sums, warp_row, warp_token);
}

/* F32: a thread works out four rows of four tokens. */
enum { F32_ROWS = 32, F32_THREADS = F32_ROWS / 4 * FLOAT_TOKENS / 4 };

__global__ void __launch_bounds__(F32_THREADS) f32_tile_product(const __grid_constant__ tile_job job) {
  /* column by column, so that a thread's four numbers are one load */
  __shared__ __align__(16) float w[FLOAT_CHUNK][F32_ROWS + 4];
  __shared__ __align__(16) float x[FLOAT_CHUNK][FLOAT_TOKENS + 4];
  const tile_place place = place_of(job, F32_ROWS);
  if (place.count <= 0) return;

  const int line = threadIdx.x % 32, quad = threadIdx.x / 32 * 4;
  const int row = min(place.row + line, job.rows - 1);
  const float *from[3] = {(const float *)matrix_of(job, place) + (int64_t)row * job.columns,
                          job.x.rows + (int64_t)x_row_of(job, place, line) * job.columns,
                          job.x.rows + (int64_t)x_row_of(job, place, line + 32) * job.columns};
  const int first_row = threadIdx.x % (F32_ROWS / 4) * 4, first_token = threadIdx.x / (F32_ROWS / 4) * 4;
  float sums[4][4] = {};
  for (int column = 0; column < job.columns; column += FLOAT_CHUNK) {
    float4 values[3][2];
    UNROLL for (int i = 0; i < 6; i++) {
      const int at = column + quad + i % 2 * 16;
      values[i / 2][i % 2] = at < job.columns ? *(const float4 *)(from[i / 2] + at) : make_float4(0, 0, 0, 0);
    }
    __syncthreads();
    UNROLL for (int i = 0; i < 6; i++) {
      const float four[4] = {values[i / 2][i % 2].x, values[i / 2][i % 2].y, values[i / 2][i % 2].z, values[i / 2][i % 2].w};
      UNROLL for (int k = 0; k < 4; k++) {
        float *to = i < 2 ? &w[quad + i % 2 * 16 + k][line] : &x[quad + i % 2 * 16 + k][line + (i / 2 - 1) * 32];
        *to = four[k];
      }
    }
    __syncthreads();
    UNROLL for (int k = 0; k < FLOAT_CHUNK; k++) {
      const float4 a = *(const float4 *)&w[k][first_row], b = *(const float4 *)&x[k][first_token];
      const float rows[4] = {a.x, a.y, a.z, a.w}, tokens[4] = {b.x, b.y, b.z, b.w};
      UNROLL for (int i = 0; i < 16; i++) sums[i / 4][i % 4] = fmaf(rows[i % 4], tokens[i / 4], sums[i / 4][i % 4]);
    }
  }
  UNROLL for (int t = 0; t < 4; t++) {
    if (first_token + t >= place.count) break;
    const sum_target target = target_of(job, place, first_token + t);
    UNROLL for (int i = 0; i < 4; i++) store_sum(job, target, place.row + first_row + i, sums[t][i], bias_of(job, place.row + first_row + i));
  }
}

} // namespace

int float_tiles(tcu_engine &e, int format, const tile_job &job, int token_tiles) {
  const dim3 grid = grid_of(job, format == FORMAT_F32 ? (int)F32_ROWS : (int)TILE_ROWS, token_tiles);
  if (format == FORMAT_F32) f32_tile_product<<<grid, F32_THREADS, 0, e.stream>>>(job);
  else if (format == FORMAT_F16) split_tile_product<true><<<grid, TILE_THREADS, 0, e.stream>>>(job);
  else if (format == FORMAT_BF16) split_tile_product<false><<<grid, TILE_THREADS, 0, e.stream>>>(job);
  else return failed(TCU_FORMAT, "no tile product of format %d", format);
  CHECK_LAUNCH("tile_product");
  return TCU_OK;
}
