/* The kernels that quantise whole rows, with RMS norm before it or without. What a warp does: quantize.cuh. */
#include "quantize.cuh"

enum { NORM_WARPS = 32 };

/* The sum over a block of warps, the same in every thread; `sums`: f32[NORM_WARPS] in shared memory. */
static __device__ float sum_of_block(float sum, float *sums) {
  UNROLL for (int stride = 16; stride > 0; stride /= 2) sum += __shfl_xor_sync(~0u, sum, stride);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
  __syncthreads();
  sum = threadIdx.x % 32 < blockDim.x / 32 ? sums[threadIdx.x % 32] : 0;
  UNROLL for (int stride = 16; stride > 0; stride /= 2) sum += __shfl_xor_sync(~0u, sum, stride);
  return sum;
}

/* A block for each token. x: f32[*, columns], weight: f32[columns], index: i32[tokens] or null. */
static __global__ void __launch_bounds__(32 * NORM_WARPS)
    norm_kernel(activations y, int forms, const float *__restrict__ x, const float *__restrict__ weight, const int32_t *__restrict__ index, int columns,
                float epsilon) {
  __shared__ float sums[NORM_WARPS];
  const size_t token = blockIdx.x;
  const float *row = x + (size_t)(index ? index[token] : (int)token) * (size_t)columns;
  float own[LANE_COLUMNS], sum = 0;
  const int lane_column = (int)threadIdx.x * LANE_COLUMNS, step = (int)blockDim.x * LANE_COLUMNS;
  for (int column = lane_column; column < columns; column += step) {
    load_lane(own, row, column, true);
    UNROLL for (int i = 0; i < LANE_COLUMNS; i++) sum = fmaf(own[i], own[i], sum);
  }
  const float factor = __fdiv_rn(1.0f, __fsqrt_rn(sum_of_block(sum, sums) / (float)columns + epsilon));
  /* Rounds of whole warps: a lane goes on as long as its warp has columns. */
  for (int first = lane_column / WARP_COLUMNS * WARP_COLUMNS; first < columns; first += step) {
    const int column = first + lane_column % WARP_COLUMNS;
    const bool active = column < columns;
    float by[LANE_COLUMNS];
    load_lane(own, row, column, active);
    load_lane(by, weight, column, active);
    UNROLL for (int i = 0; i < LANE_COLUMNS; i++) own[i] = __fmul_rn(__fmul_rn(own[i], factor), by[i]);
    store_forms(y, forms, own, token, column, columns, active);
  }
}

/* A warp for every 256 columns; blockIdx.y, and on from there by gridDim.y: the row. */
static __global__ void __launch_bounds__(32 * QUANTIZE_WARPS) quantize_kernel(activations y, int forms, int columns, int tokens) {
  const int first = (int)(blockIdx.x * QUANTIZE_WARPS + threadIdx.x / 32) * WARP_COLUMNS;
  if (first >= columns) return;
  const int column = first + (int)(threadIdx.x % 32) * LANE_COLUMNS;
  const bool active = column < columns;
  for (int token = (int)blockIdx.y; token < tokens; token += (int)gridDim.y) {
    float own[LANE_COLUMNS];
    load_lane(own, y.rows + (size_t)token * (size_t)columns, column, active);
    store_forms(y, forms, own, (size_t)token, column, columns, active);
  }
}

int norm_and_quantize(tcu_engine &e, const activations &y, int forms, const float *x, const float *weight, const int32_t *index, int columns, int tokens) {
  const int warps = (columns + WARP_COLUMNS - 1) / WARP_COLUMNS;
  norm_kernel<<<tokens, 32 * (warps < NORM_WARPS ? warps : NORM_WARPS), 0, e.stream>>>(y, forms, x, weight, index, columns, e.shape.epsilon);
  CHECK_LAUNCH("norm_and_quantize");
  return TCU_OK;
}

int quantize_rows(tcu_engine &e, const activations &y, int forms, int columns, int tokens) {
  forms &= ~FORM_ROWS;
  if (!forms) return TCU_OK;
  const int blocks = (columns + WARP_COLUMNS * QUANTIZE_WARPS - 1) / (WARP_COLUMNS * QUANTIZE_WARPS);
  quantize_kernel<<<dim3((unsigned)blocks, (unsigned)(tokens < 32768 ? tokens : 32768)), 32 * QUANTIZE_WARPS, 0, e.stream>>>(y, forms, columns, tokens);
  CHECK_LAUNCH("quantize_rows");
  return TCU_OK;
}
