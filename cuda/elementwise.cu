/* What lies between a feed-forward network's products. */
#include "launch.cuh"
#include "quantize.cuh"

static __device__ __forceinline__ float silu(float x) { return x / (1.0f + expf(-x)); }

/* A warp for every 256 columns; blockIdx.y, and on from there by gridDim.y: the row. gated: f32[rows, 2 * columns]. */
static __global__ void __launch_bounds__(32 * QUANTIZE_WARPS)
    silu_kernel(activations y, int forms, const float *gated, int columns, int rows) {
  const int first = (int)(blockIdx.x * QUANTIZE_WARPS + threadIdx.x / 32) * WARP_COLUMNS;
  let_next_start();
  wait_for_previous();
  if (first >= columns) return;
  const int column = first + (int)(threadIdx.x % 32) * LANE_COLUMNS;
  const bool active = column < columns;
  for (int row = (int)blockIdx.y; row < rows; row += (int)gridDim.y) {
    const float *gate_row = gated + (size_t)row * 2 * (size_t)columns;
    float gate[LANE_COLUMNS], up[LANE_COLUMNS];
    load_lane(gate, gate_row, column, active);
    load_lane(up, gate_row + columns, column, active);
    UNROLL for (int i = 0; i < LANE_COLUMNS; i++) gate[i] = silu(gate[i]) * up[i];
    store_forms(y, forms, gate, (size_t)row, column, columns, active);
  }
}

int silu_and_quantize(tcu_engine &e, const activations &y, int forms, const float *gated, int columns, int rows) {
  if (rows == 0) return TCU_OK;
  const int blocks = (columns + WARP_COLUMNS * QUANTIZE_WARPS - 1) / (WARP_COLUMNS * QUANTIZE_WARPS);
  launch_after(e, silu_kernel, dim3((unsigned)blocks, (unsigned)(rows < 32768 ? rows : 32768)), 32 * QUANTIZE_WARPS, 0, y, forms, gated, columns, rows);
  CHECK_LAUNCH("silu_and_quantize");
  return TCU_OK;
}
