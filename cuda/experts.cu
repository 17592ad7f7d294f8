/*
 * Routed experts of many tokens on the device. Pairs (token, expert) are grouped by expert, so that an expert's weights are read once for all of its
 * tokens; the host never learns how many those are:
 *
 *     expert_ids --group_pairs--> pairs of each expert --list_tiles--> tiles
 *     normed rows of the pairs' tokens --gate, up--> gated --silu--> hidden --down, times the pair's weight--> slots --sum_slots--> routed
 *
 * No float is added atomically: a pair's result goes to its own slot, and a token's slots are added in the order of their experts.
 */
#include "tiles.cuh"

namespace {

enum { GROUP_THREADS = 1024, SUM_THREADS = 256 };

/* The sum over the block of what each thread brings, and over the threads before it; `sums`: i32[32] in shared memory. */
__device__ int sum_of_block(int own, int *sums, int &before) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int up_to = own;
  UNROLL for (int stride = 1; stride < 32; stride *= 2) {
    const int other = __shfl_up_sync(~0u, up_to, stride);
    if (lane >= stride) up_to += other;
  }
  __syncthreads(); /* sums may still be read by the call before */
  if (lane == 31) sums[warp] = up_to;
  __syncthreads();
  int all = 0;
  before = up_to - own;
  UNROLL for (int w = 0; w < GROUP_THREADS / 32; w++) {
    if (w < warp) before += sums[w];
    all += sums[w];
  }
  return all;
}

/*
 * A block for each expert: counts the pairs of lower experts, which is where its own begin, and lists its own; each thread looks at a run of slots.
 * ids, weights: [tokens, used], pairs = tokens * used.
 */
__global__ void __launch_bounds__(GROUP_THREADS)
    group_pairs(groups g, const int32_t *__restrict__ ids, const float *__restrict__ weights, int used, int pairs) {
  __shared__ int sums[32];
  const int expert = blockIdx.x, run = (pairs + GROUP_THREADS - 1) / GROUP_THREADS;
  const int begin = min((int)threadIdx.x * run, pairs), end = min(begin + run, pairs);
  int lower = 0, own = 0;
  for (int slot = begin; slot < end; slot++) {
    lower += ids[slot] < expert;
    own += ids[slot] == expert;
  }
  int before;
  const int first = sum_of_block(lower, sums, before), count = sum_of_block(own, sums, before);
  int p = first + before;
  for (int slot = begin; slot < end; slot++) {
    if (ids[slot] != expert) continue;
    g.pair_token[p] = slot / used;
    g.pair_slot[p] = slot;
    g.pair_weight[p] = weights[slot];
    p++;
  }
  if (threadIdx.x == 0) {
    g.offsets[expert] = first;
    if (expert == (int)gridDim.x - 1) g.offsets[expert + 1] = first + count;
  }
}

/* One warp: the tiles of `tile_tokens` pairs, expert by expert. */
__global__ void __launch_bounds__(32) list_tiles(groups g, int experts, int tile_tokens) {
  const int lane = threadIdx.x;
  int listed = 0;
  for (int base = 0; base < experts; base += 32) {
    const int expert = base + lane;
    const int begin = expert < experts ? g.offsets[expert] : 0, end = expert < experts ? g.offsets[expert + 1] : 0;
    const int own = (end - begin + tile_tokens - 1) / tile_tokens;
    int up_to = own;
    UNROLL for (int stride = 1; stride < 32; stride *= 2) {
      const int other = __shfl_up_sync(~0u, up_to, stride);
      if (lane >= stride) up_to += other;
    }
    int32_t *tile = g.tiles + 1 + 2 * (listed + up_to - own);
    for (int first = begin; first < end; first += tile_tokens, tile += 2) {
      tile[0] = expert;
      tile[1] = first;
    }
    listed += __shfl_sync(~0u, up_to, 31);
  }
  if (lane == 0) g.tiles[0] = listed;
}

/* routed: f32[tokens, columns] = the sum of each token's slots: f32[tokens, used, columns]. */
__global__ void __launch_bounds__(SUM_THREADS) sum_slots(float *routed, const float *__restrict__ slots, int used, int columns) {
  const int column = 4 * (int)(blockIdx.y * SUM_THREADS + threadIdx.x);
  if (column >= columns) return;
  const float *from = slots + (size_t)blockIdx.x * (size_t)used * (size_t)columns + column;
  float4 sum = *(const float4 *)from;
  for (int j = 1; j < used; j++) {
    const float4 slot = *(const float4 *)(from + (size_t)j * (size_t)columns);
    sum.x += slot.x, sum.y += slot.y, sum.z += slot.z, sum.w += slot.w;
  }
  *(float4 *)(routed + (size_t)blockIdx.x * (size_t)columns + column) = sum;
}

/* A job over the listed tiles. */
tile_job job_of(const tcu_matrix &w, const groups &g, const activations &x, float *y, int y_stride, int tile_tokens) {
  tile_job job = {};
  job.weights[0] = (const uint8_t *)w.address;
  job.expert_bytes[0] = w.expert_bytes;
  job.rows = w.rows, job.columns = w.columns;
  job.x = x;
  job.y = y, job.y_stride = y_stride;
  job.tiles = g.tiles, job.offsets = g.offsets;
  job.tile_tokens = tile_tokens;
  return job;
}

} // namespace

int experts_tiles(tcu_engine &e, const tcu_ffn &ffn, int tokens) {
  const groups &g = e.b.pairs;
  const int used = e.shape.experts_used, experts = e.shape.experts, pairs = tokens * used, hidden = e.shape.hidden, width = ffn.gate.rows;
  if (pairs == 0) return TCU_OK;
  /* Tiles of 128 unpack a weight half as often; they pay off once an expert fills most of one. */
  const int digits = e.shape.digits;
  const bool wide = has_wide_tiles(ffn.gate.format) && has_wide_tiles(ffn.up.format) && has_wide_tiles(ffn.down.format) && pairs * digits / experts >= 96;
  const int tile_vectors = wide ? 128 : LEAST_TILE_VECTORS, tile_tokens = tile_vectors / digits;
  const int token_tiles = pairs / tile_tokens + (experts < pairs ? experts : pairs);
  group_pairs<<<experts, GROUP_THREADS, 0, e.stream>>>(g, e.b.expert_ids, e.b.expert_weights, used, pairs);
  CHECK_LAUNCH("group_pairs");
  list_tiles<<<1, 32, 0, e.stream>>>(g, experts, tile_tokens);
  CHECK_LAUNCH("list_tiles");

  tile_job gate = job_of(ffn.gate, g, e.b.normed, e.b.gated, 2 * width, tile_tokens);
  tile_job up = job_of(ffn.up, g, e.b.normed, e.b.gated + width, 2 * width, tile_tokens);
  gate.x_index = up.x_index = g.pair_token;
  if (ffn.gate.format == ffn.up.format) {
    gate.weights[1] = up.weights[0];
    gate.expert_bytes[1] = up.expert_bytes[0];
  } else {
    CHECK(tile_product(e, ffn.up.format, up, tile_vectors, token_tiles));
  }
  CHECK(tile_product(e, ffn.gate.format, gate, tile_vectors, token_tiles));
  CHECK(silu_and_quantize(e, e.b.hidden, form_of(ffn.down.format), e.b.gated, width, pairs));

  tile_job down = job_of(ffn.down, g, e.b.hidden, e.b.gated, hidden, tile_tokens);
  down.y_index = g.pair_slot;
  down.scale = g.pair_weight;
  CHECK(tile_product(e, ffn.down.format, down, tile_vectors, token_tiles));
  const int columns_of_block = 4 * SUM_THREADS;
  sum_slots<<<dim3(tokens, (hidden + columns_of_block - 1) / columns_of_block), SUM_THREADS, 0, e.stream>>>(e.b.routed, e.b.gated, used, hidden);
  CHECK_LAUNCH("sum_slots");
  return TCU_OK;
}
