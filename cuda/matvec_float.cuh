/*
 * F32, F16 and BF16 weights times f32 activations. All of a block's threads share a row: thread i takes the i-th 16 bytes and every
 * MATVEC_THREADS-th after them, of ROWS rows at a time, so that an activation that was loaded meets ROWS weights.
 */
#pragma once
#include "matvec.cuh"

/* The weights of W in 16 bytes as f32. */
template <class W> static __device__ __forceinline__ void widen(float (&to)[16 / W::BYTES], const uint4 &from) {
  UNROLL for (int i = 0; i < 16 / W::BYTES; i++) to[i] = W::value((const uint8_t *)&from, i);
}

/* Grid: blocks of rows; pairs, or tokens of MIXED. Shared: the partial sums, one pass for each warp of each job. */
template <class W, int TOKENS, int ROWS> static __global__ void __launch_bounds__(MATVEC_THREADS) matvec_float_kernel(const matvec_call call) {
  extern __shared__ __align__(16) uint8_t shared[];
  enum { COUNT = 16 / W::BYTES, LINE = 128 };
  float *partial = (float *)shared;
  if (call.ids) wait_for_previous();
  const block_place place = place_of(call);
  const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
  const size_t row_bytes = (size_t)call.columns * W::BYTES;
  if (ROWS == 1 && !call.ids) {
    for (size_t at = threadIdx.x * LINE; at < row_bytes; at += MATVEC_THREADS * LINE) {
      prefetch_line(call.matrices[place.matrix] + (size_t)place.first_row * row_bytes + at);
    }
  }
  wait_for_previous();
  let_next_start();
  for (int job = 0; job < call.jobs; job++) {
    const uint8_t *matrix = matrix_of(call, place, job);
    const float *x = call.x.rows + token_of(call, job) * (size_t)call.columns;
    for (int row = 0; row < call.block_rows; row += ROWS) {
      float sums[ROWS][TOKENS] = {};
      for (int k = (int)threadIdx.x * COUNT; k < call.columns; k += MATVEC_THREADS * COUNT) {
        uint4 raw[ROWS];
        UNROLL for (int r = 0; r < ROWS; r++) {
          raw[r] = __ldcs((const uint4 *)(matrix + (size_t)min(place.first_row + row + r, place.rows - 1) * row_bytes + (size_t)k * W::BYTES));
        }
        UNROLL for (int t = 0; t < TOKENS; t++) {
          float by[COUNT], w[COUNT];
          UNROLL for (int i = 0; i < COUNT; i += 4) {
            const float4 four = t < call.tokens ? *(const float4 *)(x + (size_t)t * (size_t)call.columns + k + i) : make_float4(0, 0, 0, 0);
            by[i] = four.x, by[i + 1] = four.y, by[i + 2] = four.z, by[i + 3] = four.w;
          }
          UNROLL for (int r = 0; r < ROWS; r++) {
            widen<W>(w, raw[r]);
            UNROLL for (int i = 0; i < COUNT; i++) sums[r][t] = fmaf(w[i], by[i], sums[r][t]);
          }
        }
      }
      UNROLL for (int r = 0; r < ROWS; r++) {
        const float sum = sum_of_lanes<TOKENS>(sums[r]);
        if (lane % (32 / TOKENS) == 0) partial[((job * MATVEC_WARPS + warp) * call.block_rows + row + r) * TOKENS + lane / (32 / TOKENS)] = sum;
      }
    }
  }
  __syncthreads();
  finish<TOKENS>(call, place, partial, MATVEC_WARPS, 1);
}
