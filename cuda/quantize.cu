/* The kernels that quantise whole rows, with RMS norm before it or without. What a warp does: quantize.cuh. */
#include "launch.cuh"
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

/* What a norm begins with. x: f32[*, columns], weight: f32[columns], index: i32[tokens] or null. */
struct norm_arguments {
  float *x;
  const float *weight;
  const int32_t *index;
  const float *routed, *shared; /* f32[tokens, columns] or null: added to x first; routed may be host memory that the pool has just written */
  int adds, columns;
  float epsilon;
};

/* The block's row of x, from `at` on, with what is to be added to it: neighbouring threads have neighbouring 16 bytes, because the host's come far. */
static __device__ __forceinline__ void add_to_row(const norm_arguments &a, size_t at) {
  float4 *x = (float4 *)(a.x + at);
  const float4 *routed = (const float4 *)(a.routed + at), *shared = (const float4 *)(a.shared + at), zero = make_float4(0, 0, 0, 0);
  for (int i = (int)threadIdx.x; i < a.columns / 4; i += (int)blockDim.x) {
    const float4 r = a.routed ? __ldcv(routed + i) : zero, s = a.shared ? shared[i] : zero, was = x[i];
    x[i] = make_float4(was.x + (r.x + s.x), was.y + (r.y + s.y), was.z + (r.z + s.z), was.w + (r.w + s.w));
  }
  __syncthreads();
}

/* A block for each token. */
static __global__ void __launch_bounds__(32 * NORM_WARPS) norm_kernel(activations y, int forms, norm_arguments a) {
  __shared__ float sums[NORM_WARPS];
  const int lane_column = (int)threadIdx.x * LANE_COLUMNS, step = (int)blockDim.x * LANE_COLUMNS;
  float by[LANE_COLUMNS], own[LANE_COLUMNS] = {}, sum = 0;
  load_lane(by, a.weight, lane_column, lane_column < a.columns);
  let_next_start();
  wait_for_previous();
  const size_t token = blockIdx.x, row = (size_t)(a.index ? a.index[token] : (int)token) * (size_t)a.columns;
  if (a.adds) add_to_row(a, row);
  for (int column = lane_column; column < a.columns; column += step) {
    load_lane(own, a.x + row, column, true);
    UNROLL for (int i = 0; i < LANE_COLUMNS; i++) sum = fmaf(own[i], own[i], sum);
  }
  const float factor = __fdiv_rn(1.0f, __fsqrt_rn(sum_of_block(sum, sums) / (float)a.columns + a.epsilon));
  /* Rounds of whole warps: a lane goes on as long as its warp has columns. What one round needs is still there. */
  for (int first = lane_column / WARP_COLUMNS * WARP_COLUMNS; first < a.columns; first += step) {
    const int column = first + lane_column % WARP_COLUMNS;
    const bool active = column < a.columns;
    if (a.columns > step) {
      load_lane(own, a.x + row, column, active);
      load_lane(by, a.weight, column, active);
    }
    UNROLL for (int i = 0; i < LANE_COLUMNS; i++) own[i] = __fmul_rn(__fmul_rn(own[i], factor), by[i]);
    store_forms(y, forms, own, token, column, a.columns, active);
  }
}

/* A warp for every 256 columns; blockIdx.y, and on from there by gridDim.y: the row. */
static __global__ void __launch_bounds__(32 * QUANTIZE_WARPS) quantize_kernel(activations y, int forms, int columns, int tokens) {
  const int first = (int)(blockIdx.x * QUANTIZE_WARPS + threadIdx.x / 32) * WARP_COLUMNS;
  let_next_start();
  wait_for_previous();
  if (first >= columns) return;
  const int column = first + (int)(threadIdx.x % 32) * LANE_COLUMNS;
  const bool active = column < columns;
  for (int token = (int)blockIdx.y; token < tokens; token += (int)gridDim.y) {
    float own[LANE_COLUMNS];
    load_lane(own, y.rows + (size_t)token * (size_t)columns, column, active);
    store_forms(y, forms, own, (size_t)token, column, columns, active);
  }
}

static int launch_norm(tcu_engine &e, const activations &y, int forms, const norm_arguments &a, int tokens) {
  const int warps = (a.columns + WARP_COLUMNS - 1) / WARP_COLUMNS;
  const int threads = 32 * (a.adds || warps > NORM_WARPS ? (int)NORM_WARPS : warps);
  launch_after(e, norm_kernel, dim3((unsigned)tokens), threads, 0, y, forms, a);
  CHECK_LAUNCH("norm_kernel");
  return TCU_OK;
}

int norm_and_quantize(tcu_engine &e, const activations &y, int forms, const float *x, const float *weight, const int32_t *index, int columns, int tokens) {
  return launch_norm(e, y, forms, {const_cast<float *>(x), weight, index, nullptr, nullptr, 0, columns, e.shape.epsilon}, tokens);
}

int combine_and_norm(tcu_engine &e, const float *routed, const float *shared, const activations &y, int forms, const float *weight) {
  return launch_norm(e, y, forms, {e.b.x, weight, nullptr, routed, shared, 1, e.shape.hidden, e.shape.epsilon}, e.step.token_count);
}

int quantize_rows(tcu_engine &e, const activations &y, int forms, int columns, int tokens) {
  forms &= ~FORM_ROWS;
  if (!forms) return TCU_OK;
  const int blocks = (columns + WARP_COLUMNS * QUANTIZE_WARPS - 1) / (WARP_COLUMNS * QUANTIZE_WARPS);
  launch_after(e, quantize_kernel, dim3((unsigned)blocks, (unsigned)(tokens < 32768 ? tokens : 32768)), 32 * QUANTIZE_WARPS, 0, y, forms, columns, tokens);
  CHECK_LAUNCH("quantize_rows");
  return TCU_OK;
}
