/*
 * Matrix times up to DECODE_TOKENS vectors, of which a token of quantised activations has `digits`: what the kernels for quantised weights
 * (matvec_quantized.cuh) and float ones (matvec_float.cuh) share.
 *
 * A block works out BLOCK_ROWS or more rows of one or several matrices, its jobs. A pass is one slice of the columns of one job; every pass leaves
 * a partial sum for each row and token in shared memory, and `finish` adds them in the order of the passes. So a result depends neither on timing
 * nor on how many tokens are in the call.
 */
#pragma once
#include "launch.cuh"

enum { MATVEC_WARPS = 4, MATVEC_THREADS = 32 * MATVEC_WARPS };

/*
 * STORE  y[t] (=, +=) W x[t] + bias, of up to MOST_STACKED matrices side by side; with experts: y[p] = W_e x[token of p] for pair p = blockIdx.y, e = ids[p]
 * GATED  y[t] = silu(gate x[t]) * (up x[t]); with experts the same for pair p = blockIdx.y
 * MIXED  y[t] = sum over i of expert_weights[t, i] * W_e x[t, i] for token t = blockIdx.y, e = ids[t, i], i ascending
 */
enum matvec_kind { MATVEC_STORE, MATVEC_GATED, MATVEC_MIXED };

struct matvec_call {
  int kind, add;
  int early; /* weights may be fetched before the kernel ahead is done: it is not the one that chooses the experts */
  const uint8_t *matrices[MOST_STACKED]; /* GATED: gate, up; STORE: those that are stacked */
  const float *biases[MOST_STACKED];
  int rows[MOST_STACKED], first_blocks[MOST_STACKED]; /* of the stacked ones: in blockIdx.x */
  int stacked, columns;
  int block_rows;
  int tokens;                 /* that share the weights; 1 with experts */
  int jobs;                   /* matrices that a block reads: 1, GATED 2, MIXED `used` */
  const int32_t *ids;         /* i32[*, used], or null: no experts */
  const float *expert_weights;
  uint64_t expert_bytes[2];
  int used;
  activations x;
  float *y;                   /* f32[*, y_stride] */
  int y_stride;
};

/* Which rows a block has: of which of the stacked matrices, and where those begin in y; the experts of its jobs. */
struct block_place {
  int matrix, first_row, rows, y_begin;
  const int32_t *experts; /* in shared memory */
};

/*
 * All threads of a block. Ids are read from the L2 cache, because that may happen before the wait for the kernel ahead, and once: a trip there for
 * every pass would hold a warp up.
 */
static __device__ __forceinline__ block_place place_of(const matvec_call &call) {
  __shared__ int32_t experts[MOST_USED];
  if (call.ids) {
    const bool mixed = call.kind == MATVEC_MIXED;
    const size_t pair = mixed ? (size_t)blockIdx.y * (size_t)call.used : blockIdx.y;
    if ((int)threadIdx.x < (mixed ? call.used : 1)) experts[threadIdx.x] = __ldcg(call.ids + pair + threadIdx.x);
    __syncthreads();
  }
  block_place at = {0, 0, call.rows[0], 0, experts};
  while (at.matrix + 1 < call.stacked && (int)blockIdx.x >= call.first_blocks[at.matrix + 1]) {
    at.y_begin += at.rows;
    at.rows = call.rows[++at.matrix];
  }
  at.first_row = ((int)blockIdx.x - call.first_blocks[at.matrix]) * call.block_rows;
  return at;
}

/* A block's matrix for a job, and the token of x that meets it; token t is t tokens on. */
static __device__ __forceinline__ const uint8_t *matrix_of(const matvec_call &call, const block_place &place, int job) {
  const int which = call.kind == MATVEC_GATED ? job : place.matrix;
  if (!call.ids) return call.matrices[which];
  return call.matrices[which] + (size_t)place.experts[call.kind == MATVEC_MIXED ? job : 0] * call.expert_bytes[which];
}
static __device__ __forceinline__ size_t token_of(const matvec_call &call, int job) {
  if (!call.ids) return 0;
  return call.kind == MATVEC_MIXED ? (size_t)blockIdx.y * (size_t)call.used + (size_t)job : blockIdx.y / (unsigned)call.used;
}

/*
 * The sums over the 32 lanes of own[0] to own[COUNT - 1] (a power of 2): lane l gets that of number l / (32 / COUNT). Whatever COUNT is, a number's
 * parts are added in the same order: those of lanes 16 apart, then 8, and so on; lanes exchange one half of the numbers that they have left for the
 * other as long as they have several.
 */
template <int COUNT, int STRIDE = 16> static __device__ __forceinline__ float sum_of_lanes(float *own) {
  if constexpr (STRIDE == 0) {
    return own[0];
  } else if constexpr (COUNT == 1) {
    own[0] += __shfl_xor_sync(~0u, own[0], STRIDE);
    return sum_of_lanes<1, STRIDE / 2>(own);
  } else {
    const bool upper = threadIdx.x & STRIDE;
    UNROLL for (int i = 0; i < COUNT / 2; i++) {
      const float sent = upper ? own[i] : own[i + COUNT / 2], kept = upper ? own[i + COUNT / 2] : own[i];
      own[i] = kept + __shfl_xor_sync(~0u, sent, STRIDE);
    }
    return sum_of_lanes<COUNT / 2, STRIDE / 2>(own);
  }
}

/* partial: f32[passes, block_rows, TOKENS]; the sum of `slices` passes from `first` on, of one of a token's digits after the other. */
static __device__ __forceinline__ float sum_of_passes(const float *partial, int first, int slices, int stride, int at, int digits) {
  float sum = 0;
  for (int d = 0; d < digits; d++) {
    float own = 0;
    for (int s = first; s < first + slices; s++) own += partial[s * stride + at + d];
    sum += own;
  }
  return sum;
}

/* Writes a block's results. partial: f32[jobs * slices, block_rows, TOKENS], complete; TOKENS counts vectors, `digits` for each token. */
template <int TOKENS> static __device__ void finish(const matvec_call &call, const block_place &place, const float *partial, int slices, int digits) {
  const int stride = call.block_rows * TOKENS;
  for (int i = (int)threadIdx.x; i < stride; i += (int)blockDim.x) {
    /* neighbouring threads have neighbouring rows: y may be host memory */
    const int t = i / call.block_rows, row = i - t * call.block_rows, at = row * TOKENS + t * digits, r = place.first_row + row;
    if (r >= place.rows || t >= call.tokens) continue;
    float *y = call.y + (size_t)(call.ids ? (int)blockIdx.y : t) * (size_t)call.y_stride + place.y_begin + r;
    const auto sum_of_job = [&](int job) { return sum_of_passes(partial, job * slices, slices, stride, at, digits); };
    float value = sum_of_job(0);
    if (call.kind == MATVEC_GATED) {
      value = value / (1 + expf(-value)) * sum_of_job(1);
    } else if (call.kind == MATVEC_MIXED) {
      const float *by = call.expert_weights + (size_t)blockIdx.y * (size_t)call.used;
      value *= by[0];
      for (int job = 1; job < call.jobs; job++) value += by[job] * sum_of_job(job);
    } else {
      const float *bias = call.biases[place.matrix];
      if (bias) value += bias[r];
      if (call.add) value += *y;
    }
    *y = value;
  }
}
