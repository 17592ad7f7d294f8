/*
 * The pieces that decode and prefill share: tiles of keys and values in shared memory, tensor core products, the running softmax.
 *
 * A warp has 16 queries. In the fragments of mma.m16n8k16 a lane has rows `lane / 4` and `lane / 4 + 8`, and columns `lane % 4 * 2` and the next
 * one of every 8: c[tile][0..1] of the first row, c[tile][2..3] of the second one.
 *
 * A row of D elements in shared memory is chunks of 8; chunk c of row r lies at c ^ (r % 8), so that 8 rows' chunks of one number are in
 * different banks. A head narrower than D has zeros behind it.
 */
#pragma once
#include <cuda_fp16.h>
#include <stdint.h>
#include "mma.cuh"

#define DEVICE static __device__ __forceinline__

/* Where chunk `chunk` of row `row` begins. */
template <int D> DEVICE int chunk_at(int row, int chunk) { return row * D + ((chunk ^ (D == 32 ? row / 2 % 4 : row % 8)) * 8); }

DEVICE void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/* Returns when all but the latest N groups of this thread's copies are there. */
template <int N> DEVICE void copies_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

/* load_matrices of the transposed ones. */
DEVICE void load_matrices_transposed(uint32_t (&to)[4], const __half *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(row))
               : "memory");
}

/* Rows 0..15, columns 16 k .. 16 k + 15 of a tile as the first operand. */
template <int D> DEVICE void load_queries(uint32_t (&to)[4], const __half *tile, int k, int lane) {
  load_matrices(to, shared_address(tile + chunk_at<D>(lane % 16, 2 * k + lane / 16)));
}
/* 16 keys from `row`, elements 16 k .. 16 k + 15 as second operands: to[0..1] of the first 8 keys, to[2..3] of the others. */
template <int D> DEVICE void load_keys(uint32_t (&to)[4], const __half *tile, int row, int k, int lane) {
  load_matrices(to, shared_address(tile + chunk_at<D>(row + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2)));
}
/* 16 values from `row`, elements 16 n .. 16 n + 15 as second operands: to[0..1] of the first 8 elements, to[2..3] of the others. */
template <int D> DEVICE void load_values(uint32_t (&to)[4], const __half *tile, int row, int n, int lane) {
  load_matrices_transposed(to, tile + chunk_at<D>(row + lane % 16, 2 * n + lane / 16));
}

/* c += a b: f32[16, 8] += f16[16, 16] f16[16, 8] */
DEVICE void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

DEVICE uint32_t pack(float low, float high) {
  const __half2 both = __floats2half2_rn(low, high);
  return *(const uint32_t *)&both;
}
/* What `packed` lost of the two numbers. */
DEVICE uint32_t pack_rest(uint32_t packed, float low, float high) {
  const float2 kept = __half22float2(*(const __half2 *)&packed);
  return pack(low - kept.x, high - kept.y);
}

DEVICE float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/* The running softmax of a lane's two rows; `sum` is of the lane's own columns until it is collected. */
struct softmax {
  float largest[2], sum[2];
};

DEVICE softmax softmax_start() { return {{-INFINITY, -INFINITY}, {0, 0}}; }

/* Scores become weights 2^(score - largest); what was summed before is scaled down where a larger score has come. Every row sees some key. */
template <int SCORE_TILES, int SUM_TILES>
DEVICE void softmax_add(softmax &state, float (&scores)[SCORE_TILES][4], float (&sums)[SUM_TILES][4]) {
  float largest[2] = {state.largest[0], state.largest[1]};
#pragma unroll
  for (int i = 0; i < SCORE_TILES; i++) {
    largest[0] = fmaxf(largest[0], fmaxf(scores[i][0], scores[i][1]));
    largest[1] = fmaxf(largest[1], fmaxf(scores[i][2], scores[i][3]));
  }
#pragma unroll
  for (int row = 0; row < 2; row++) {
    largest[row] = fmaxf(largest[row], __shfl_xor_sync(~0u, largest[row], 1));
    largest[row] = fmaxf(largest[row], __shfl_xor_sync(~0u, largest[row], 2));
  }
  if (__any_sync(~0u, largest[0] != state.largest[0] || largest[1] != state.largest[1])) {
    const float factor[2] = {exp2_fast(state.largest[0] - largest[0]), exp2_fast(state.largest[1] - largest[1])};
#pragma unroll
    for (int i = 0; i < SUM_TILES; i++) {
      sums[i][0] *= factor[0];
      sums[i][1] *= factor[0];
      sums[i][2] *= factor[1];
      sums[i][3] *= factor[1];
    }
    state = {{largest[0], largest[1]}, {state.sum[0] * factor[0], state.sum[1] * factor[1]}};
  }
#pragma unroll
  for (int i = 0; i < SCORE_TILES; i++) {
#pragma unroll
    for (int j = 0; j < 4; j++) {
      scores[i][j] = exp2_fast(scores[i][j] - largest[j / 2]);
      state.sum[j / 2] += scores[i][j];
    }
  }
}

/* Adds up the four lanes that share a row. */
DEVICE void softmax_collect(softmax &state) {
#pragma unroll
  for (int row = 0; row < 2; row++) {
    state.sum[row] += __shfl_xor_sync(~0u, state.sum[row], 1);
    state.sum[row] += __shfl_xor_sync(~0u, state.sum[row], 2);
  }
}
