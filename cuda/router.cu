/*
 * Which experts a token goes to: wasm/routing.c for one token a block, and with a slot the hand-off's records, written by the block's other warps
 * meanwhile. For few tokens the same kernel tells the pool, which saves a launch where it counts.
 */
#include "handoff.cuh"
#include "launch.cuh"
#include "order.cuh"
#include "records.cuh"

enum { ROUTE_THREADS = 512, ROUTE_WARPS = ROUTE_THREADS / 32 };

/* A kernel parameter. */
struct route_arguments {
  const float *logits; /* f32[tokens, experts] */
  const float *bias;   /* f32[experts] or null: added for the choice only */
  int32_t *ids;        /* i32[tokens, used] */
  float *weights;
  activations normed;
  tcu_slot slot; /* as the device sees it; all null without one */
  uint32_t *counters;
  int32_t *published; /* null: not told here */
  float scale;
  int gating, normalize, experts, used, hidden, tokens;
};

/* e^x like wasm/exp.h: 0 far below, NaN stays NaN. */
__device__ __forceinline__ float exp_or_zero(float x) { return x < -87.3f ? 0.0f : x > 88.37f ? expf(88.37f) : expf(x); }

__device__ __forceinline__ float warp_sum(float x) {
  for (int lanes = 16; lanes > 0; lanes /= 2) x += __shfl_xor_sync(~0u, x, lanes);
  return x;
}

/* gates: f32[experts] in shared memory, written by one warp, each lane those that it reads later. */
__device__ void make_gates(float *gates, const float *logits, const route_arguments &a, int lane) {
  if (a.gating == GATING_SIGMOID) {
    for (int e = lane; e < a.experts; e += 32) gates[e] = __fdiv_rn(1.0f, 1.0f + exp_or_zero(-logits[e]));
    return;
  }
  float largest = -INFINITY;
  for (int e = lane; e < a.experts; e += 32) largest = fmaxf(largest, logits[e]);
  for (int lanes = 16; lanes > 0; lanes /= 2) largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, lanes));
  float total = 0;
  for (int e = lane; e < a.experts; e += 32) {
    gates[e] = exp_or_zero(logits[e] - largest);
    total += gates[e];
  }
  total = warp_sum(total);
  for (int e = lane; e < a.experts; e += 32) gates[e] = __fdiv_rn(gates[e], total);
}

/* The lane's expert with the highest rank among those not taken yet, ties to the lower id. Rank 0 is that of a taken one. */
__device__ __forceinline__ void best_of_lane(const uint32_t *ranks, int experts, int lane, uint32_t &rank, int &id) {
  rank = 0;
  id = INT32_MAX;
  for (int e = lane; e < experts; e += 32) {
    if (ranks[e] > rank) {
      rank = ranks[e];
      id = e;
    }
  }
}

/* One warp: token t's ids, ascending, and weights, to the device's buffers and the slot's. */
__device__ void choose(const route_arguments &a, int t, int lane) {
  extern __shared__ float gates[]; /* f32[experts], then their ranks u32[experts] */
  __shared__ int chosen[MOST_USED], sorted[MOST_USED];
  uint32_t *ranks = (uint32_t *)(gates + a.experts);
  make_gates(gates, a.logits + (size_t)t * (size_t)a.experts, a, lane);
  for (int e = lane; e < a.experts; e += 32) {
    const float rank = gates[e] + (a.bias ? a.bias[e] : 0.0f);
    /* NaN ranks with -infinity: last, but every token gets valid ids */
    ranks[e] = rank == rank ? ordered(rank) : ordered(-INFINITY);
  }
  uint32_t rank;
  int id;
  best_of_lane(ranks, a.experts, lane, rank, id);
  for (int i = 0; i < a.used; i++) {
    const uint32_t highest = __reduce_max_sync(~0u, rank);
    const int winner = (int)__reduce_min_sync(~0u, rank == highest ? (unsigned)id : (unsigned)INT32_MAX);
    if (winner == id) {
      chosen[i] = id;
      ranks[id] = 0;
      best_of_lane(ranks, a.experts, lane, rank, id);
    }
  }
  __syncwarp();
  for (int i = lane; i < a.used; i += 32) {
    int before = 0;
    for (int k = 0; k < a.used; k++) before += chosen[k] < chosen[i];
    sorted[before] = chosen[i];
  }
  __syncwarp();
  float sum = 0;
  for (int i = 0; i < a.used; i++) sum += gates[sorted[i]];
  if (sum < 6.103515625e-5f) sum = 6.103515625e-5f; /* false for NaN, which stays */
  for (int i = lane; i < a.used; i += 32) {
    const float gate = gates[sorted[i]], weight = (a.normalize ? __fdiv_rn(gate, sum) : gate) * (a.scale == 0 ? 1.0f : a.scale);
    const size_t at = (size_t)t * (size_t)a.used + (size_t)i;
    a.ids[at] = sorted[i];
    a.weights[at] = weight;
    if (a.slot.expert_ids) a.slot.expert_ids[at] = sorted[i];
    if (a.slot.expert_weights) a.slot.expert_weights[at] = weight;
  }
}

/* Warps 1 and on: token t's normed row and records. */
__device__ void write_slot(const route_arguments &a, int t) {
  const int thread = (int)threadIdx.x - 32, threads = ROUTE_THREADS - 32;
  const size_t begin = (size_t)t * (size_t)a.hidden;
  if (a.slot.normed) {
    const float4 *from = (const float4 *)(a.normed.rows + begin);
    float4 *to = (float4 *)(a.slot.normed + begin);
    for (int i = thread; i < a.hidden / 4; i += threads) to[i] = from[i];
  }
  for (int d = 0; d < a.normed.digits; d++) {
    const size_t at = ((size_t)t * (size_t)a.normed.digits + (size_t)d) * (size_t)a.hidden;
    const quantized &x32 = a.normed.q8x32, &x256 = a.normed.q8x256;
    if (a.slot.q8x32) {
      uint32_t *to = (uint32_t *)a.slot.q8x32 + at / 32 * WORDS_Q8X32;
      write_q8x32(to, x32.values + at, x32.scales + at / GROUP, a.hidden, thread, threads);
    }
    if (a.slot.q8x256) {
      uint32_t *to = (uint32_t *)a.slot.q8x256 + at / 256 * WORDS_Q8X256;
      write_q8x256(to, x256.values + at, x256.scales + at / GROUP, a.hidden, thread / 32, ROUTE_WARPS - 1, thread % 32);
    }
  }
}

/* A block for every token. With `published` the last block to be done tells the pool. */
__global__ void __launch_bounds__(ROUTE_THREADS) route_kernel(route_arguments a) {
  const int t = (int)blockIdx.x;
  let_next_start();
  if (a.bias && threadIdx.x < 32) {
    for (int e = (int)threadIdx.x * 32; e < a.experts; e += 32 * 32) prefetch_line(a.bias + e);
  }
  wait_for_previous();
  if (threadIdx.x < 32) choose(a, t, (int)threadIdx.x);
  else write_slot(a, t);
  if (!a.published) return;
  __syncthreads();
  if (threadIdx.x != 0) return;
  if (a.tokens > 1) {
    /* the fence hands this block's stores to whoever sees its ticket */
    __threadfence_system();
    if (atomicAdd(a.counters + COUNTER_TICKET, 1u) != (uint32_t)a.tokens - 1) return;
    a.counters[COUNTER_TICKET] = 0;
  }
  publish_slot(a.counters, a.published, a.slot.entry, a.tokens);
}

int route(tcu_engine &e, const layer_binding &layer, bool publish) {
  const tcu_shape &s = e.shape;
  const tcu_slot none = {};
  route_arguments a = {};
  a.logits = e.b.router_logits;
  a.bias = (const float *)layer.weights.selection_bias;
  a.ids = e.b.expert_ids;
  a.weights = e.b.expert_weights;
  a.normed = e.b.normed;
  a.slot = layer.has_slot ? layer.slot : none;
  a.counters = e.b.counters;
  a.published = publish ? e.host.published : nullptr;
  a.scale = s.weights_scale;
  a.gating = s.gating;
  a.normalize = s.normalize_weights;
  a.experts = s.experts;
  a.used = s.experts_used;
  a.hidden = s.hidden;
  a.tokens = e.step.token_count;
  const size_t shared = (size_t)s.experts * 2 * sizeof(float);
  e.ids_settled = false;
  launch_after(e, route_kernel, dim3((unsigned)a.tokens), layer.has_slot ? ROUTE_THREADS : 32, shared, a);
  CHECK_LAUNCH("route_kernel");
  return TCU_OK;
}
