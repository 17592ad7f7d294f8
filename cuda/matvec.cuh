/*
 * Matrix times up to DECODE_TOKENS vectors: what the kernels for quantised weights (matvec_quantized.cuh) and float ones (matvec_float.cuh) share.
 *
 * A block works out BLOCK_ROWS or more rows of one or several matrices, its jobs. A pass is one slice of the columns of one job; every pass leaves
 * a partial sum for each row and token in shared memory, and `finish` adds them in the order of the passes. So a result depends neither on timing
 * nor on how many tokens are in the call.
 */
#pragma once
#include "engine.cuh"

enum { MATVEC_WARPS = 4, MATVEC_THREADS = 32 * MATVEC_WARPS, WARP_ROWS = 4 };

/*
 * STORE  y[t] (=, +=) W x[t] + bias; with experts: y[p] = W_e x[token of p] for pair p = blockIdx.y, e = ids[p]
 * GATED  y[t] = silu(gate x[t]) * (up x[t]); with experts the same for pair p = blockIdx.y
 * MIXED  y[t] = sum over i of expert_weights[t, i] * W_e x[t, i] for token t = blockIdx.y, e = ids[t, i], i ascending
 */
enum matvec_kind { MATVEC_STORE, MATVEC_GATED, MATVEC_MIXED };

struct matvec_call {
  int kind, add;
  const uint8_t *matrices[2]; /* GATED: gate, up */
  int rows, columns;
  int block_rows;             /* a multiple of WARP_ROWS */
  int tokens;                 /* vectors that share the weights; 1 with experts */
  int jobs;                   /* matrices that a block reads: 1, GATED 2, MIXED `used` */
  const int32_t *ids;         /* i32[*, used], or null: no experts */
  const float *expert_weights;
  uint64_t expert_bytes[2];
  int used;
  activations x;
  float *y;                   /* f32[*, y_stride] */
  int y_stride;
  const float *bias;
};

/* A block's matrix for a job, and the row of x that meets it; the row of token t is t rows on. */
static __device__ __forceinline__ const uint8_t *matrix_of(const matvec_call &call, int job) {
  const int which = call.kind == MATVEC_GATED ? job : 0;
  if (!call.ids) return call.matrices[which];
  const size_t pair = call.kind == MATVEC_MIXED ? (size_t)blockIdx.y * (size_t)call.used + (size_t)job : blockIdx.y;
  return call.matrices[which] + (size_t)call.ids[pair] * call.expert_bytes[which];
}
static __device__ __forceinline__ size_t vector_of(const matvec_call &call, int job) {
  if (!call.ids) return 0;
  return call.kind == MATVEC_MIXED ? (size_t)blockIdx.y * (size_t)call.used + (size_t)job : blockIdx.y / (unsigned)call.used;
}

/*
 * The sums over the 32 lanes of own[0] to own[TOKENS - 1] (a power of 2): lane l gets that of token l % TOKENS. Every token's numbers are added in
 * the same order whatever TOKENS is: at each stride the lanes that are left exchange one half of what they hold for the other.
 */
template <int TOKENS> static __device__ __forceinline__ float sum_of_lanes(float (&own)[TOKENS]) {
  const int lane = threadIdx.x % 32;
  UNROLL for (int stride = 16; stride >= TOKENS; stride /= 2) {
    UNROLL for (int t = 0; t < TOKENS; t++) own[t] += __shfl_xor_sync(~0u, own[t], stride);
  }
  UNROLL for (int stride = TOKENS / 2; stride > 0; stride /= 2) {
    const bool upper = lane & stride;
    UNROLL for (int t = 0; t < stride; t++) {
      const float sent = upper ? own[t] : own[t + stride], kept = upper ? own[t + stride] : own[t];
      own[t] = kept + __shfl_xor_sync(~0u, sent, stride);
    }
  }
  return own[0];
}

/* partial: f32[passes, block_rows, TOKENS]; the sum of `slices` passes from `first` on. */
static __device__ __forceinline__ float sum_of_passes(const float *partial, int first, int slices, int stride, int at) {
  float sum = 0;
  for (int s = first; s < first + slices; s++) sum += partial[s * stride + at];
  return sum;
}

/* Writes a block's results. partial: f32[jobs * slices, block_rows, TOKENS], complete. */
template <int TOKENS> static __device__ void finish(const matvec_call &call, const float *partial, int slices, int first_row) {
  const int stride = call.block_rows * TOKENS;
  for (int at = (int)threadIdx.x; at < stride; at += (int)blockDim.x) {
    const int r = first_row + at / TOKENS, t = at % TOKENS;
    if (r >= call.rows || t >= call.tokens) continue;
    float *y = call.y + (size_t)(call.ids ? (int)blockIdx.y : t) * (size_t)call.y_stride + r;
    float value = sum_of_passes(partial, 0, slices, stride, at);
    if (call.kind == MATVEC_GATED) {
      value = value / (1 + expf(-value)) * sum_of_passes(partial, slices, slices, stride, at);
    } else if (call.kind == MATVEC_MIXED) {
      const float *by = call.expert_weights + (size_t)blockIdx.y * (size_t)call.used;
      value *= by[0];
      for (int job = 1; job < call.jobs; job++) value += by[job] * sum_of_passes(partial, job * slices, slices, stride, at);
    } else {
      if (call.bias) value += call.bias[r];
      if (call.add) value += *y;
    }
    *y = value;
  }
}
