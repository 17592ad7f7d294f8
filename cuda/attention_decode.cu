/*
 * Attention of one token per sequence. A context is cut into parts; a block takes one part, one KV head and up to 16 of its query heads, so that
 * keys and values are read once for all of them. Its warps take tiles of 32 keys (one cache block) in turn, each with copies of its own under way.
 * A second kernel merges the parts.
 *
 * Time goes into reading keys and values: the tensor cores work on 16 rows however few there are, and have time enough to take queries and
 * weights as two f16 each (what rounding lost is the second), which is as good as f32.
 *
 * The host knows only a bound of the contexts' lengths: the number of parts comes from it, their length from the device, and parts behind the
 * end of a context end at once.
 *
 * parts: sums f32[runs, heads, splits, head_dim], then largest score and sum of weights f32[runs, heads, splits, 2].
 */
#include "attention.cuh"
#include "attention_tile.cuh"
#include "launch.cuh"
#include "quantize.cuh"

enum { DECODE_ROWS = 16, STAGES = 2, MERGE_THREADS = 128 };

template <int D> struct decode_shape {
  static constexpr int WARPS = D <= 64 ? 4 : 256 / D;
  static constexpr int TILE = KV_BLOCK_TOKENS * D;
  /* Two tiles (keys, values) in each stage of each warp, and the queries as two f16. */
  static constexpr int BYTES = (WARPS * STAGES * 2 * TILE + 2 * DECODE_ROWS * D) * 2;
};

/* Tiles in one part of a context; parts behind the last tile are empty. */
static __device__ int tiles_per_split(int tiles, int splits) { return (tiles + splits - 1) / splits; }

/* Queues the copy of one tile: rows f16[32, head_dim] of a cache block; rows that hold no key yet become zeros. */
template <int D> DEVICE void copy_tile(__half *to, const __half *from, int head_dim, int rows, int lane) {
#pragma unroll
  for (int i = 0; i < D / 8; i++) {
    const int index = i * 32 + lane, row = index / (D / 8), chunk = index % (D / 8);
    if (chunk * 8 < head_dim) copy_16(shared_address(to + chunk_at<D>(row, chunk)), from + row * head_dim + chunk * 8, row < rows);
  }
}

/* queries: f16[2, 16, D]: rows of f32[head_dim] times scale, then what rounding lost. */
template <int D>
DEVICE void split_queries(__half *queries, const float *q, int rows, int head_dim, float scale) {
  for (int i = threadIdx.x; i < DECODE_ROWS * D / 2; i += blockDim.x) {
    const int row = i / (D / 2), column = i % (D / 2) * 2;
    const bool is_there = row < rows && column < head_dim;
    const float2 x = is_there ? *(const float2 *)(q + row * head_dim + column) : make_float2(0, 0);
    const uint32_t high = pack(x.x * scale, x.y * scale);
    uint32_t *to = (uint32_t *)(queries + chunk_at<D>(row, column / 8) + column % 8);
    to[0] = high;
    to[DECODE_ROWS * D / 2] = pack_rest(high, x.x * scale, x.y * scale);
  }
}

/* scores: f32[16, 32] = queries . keys */
template <int D> DEVICE void score_tile(float (&scores)[4][4], const __half *queries, const __half *keys, int lane) {
#pragma unroll
  for (int i = 0; i < 4; i++) scores[i][0] = scores[i][1] = scores[i][2] = scores[i][3] = 0;
#pragma unroll
  for (int k = 0; k < D / 16; k++) {
    uint32_t high[4], rest[4], first[4], second[4];
    load_queries<D>(high, queries, k, lane);
    load_queries<D>(rest, queries + DECODE_ROWS * D, k, lane);
    load_keys<D>(first, keys, 0, k, lane);
    load_keys<D>(second, keys, 16, k, lane);
    multiply_add(scores[0], rest, first[0], first[1]);
    multiply_add(scores[1], rest, first[2], first[3]);
    multiply_add(scores[2], rest, second[0], second[1]);
    multiply_add(scores[3], rest, second[2], second[3]);
    multiply_add(scores[0], high, first[0], first[1]);
    multiply_add(scores[1], high, first[2], first[3]);
    multiply_add(scores[2], high, second[0], second[1]);
    multiply_add(scores[3], high, second[2], second[3]);
  }
}

/* sums: f32[16, D] += weights . values */
template <int D> DEVICE void sum_tile(float (&sums)[D / 8][4], const float (&weights)[4][4], const __half *values, int lane) {
#pragma unroll
  for (int k = 0; k < 2; k++) {
    uint32_t high[4], rest[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const float *pair = weights[2 * k + i / 2] + i % 2 * 2;
      high[i] = pack(pair[0], pair[1]);
      rest[i] = pack_rest(high[i], pair[0], pair[1]);
    }
#pragma unroll
    for (int n = 0; n < D / 16; n++) {
      uint32_t value[4];
      load_values<D>(value, values, 16 * k, n, lane);
      multiply_add(sums[2 * n], rest, value[0], value[1]);
      multiply_add(sums[2 * n + 1], rest, value[2], value[3]);
      multiply_add(sums[2 * n], high, value[0], value[1]);
      multiply_add(sums[2 * n + 1], high, value[2], value[3]);
    }
  }
}

/* A warp's sums to shared memory: f32[16, D] and f32[16, 2]. */
template <int D> DEVICE void put_sums(float *to, float *states, const float (&sums)[D / 8][4], const softmax &state, int lane) {
#pragma unroll
  for (int i = 0; i < D / 8; i++) {
#pragma unroll
    for (int row = 0; row < 2; row++) {
      *(float2 *)(to + (lane / 4 + row * 8) * D + i * 8 + lane % 4 * 2) = make_float2(sums[i][2 * row], sums[i][2 * row + 1]);
    }
  }
  if (lane % 4 != 0) return;
#pragma unroll
  for (int row = 0; row < 2; row++) {
    *(float2 *)(states + (lane / 4 + row * 8) * 2) = make_float2(state.largest[row], state.sum[row]);
  }
}

/* grid: splits, kv_heads * row tiles, runs */
template <int D>
static __global__ void __launch_bounds__(decode_shape<D>::WARPS * 32) decode_kernel(attention_arguments a) {
  constexpr int WARPS = decode_shape<D>::WARPS, TILE = decode_shape<D>::TILE;
  extern __shared__ __align__(16) __half memory[];
  let_next_start();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, splits = gridDim.x;
  const int32_t *run = a.runs + blockIdx.z * 4;
  const int token = run[0], keys = a.positions[token] + 1, tiles = (keys + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
  const int per_split = tiles_per_split(tiles, splits), begin = blockIdx.x * per_split, end = min(begin + per_split, tiles);
  if (begin >= end) return;

  const int row_tiles = gridDim.y / a.kv_heads, kv_head = blockIdx.y / row_tiles, first_row = blockIdx.y % row_tiles * DECODE_ROWS;
  const int rows = min(DECODE_ROWS, a.group - first_row), head = kv_head * a.group + first_row;
  const int32_t *table = a.block_tables + (int64_t)run[2] * a.blocks_per_sequence;
  const int64_t qkv_stride = (int64_t)(a.heads + 2 * a.kv_heads) * a.head_dim;

  __half *queries = memory, *stages = memory + 2 * DECODE_ROWS * D + warp * (STAGES * 2 * TILE);
  if (a.head_dim < D) {
    for (int i = lane; i < STAGES * 2 * TILE / 8; i += 32) ((uint4 *)stages)[i] = make_uint4(0, 0, 0, 0);
    __syncwarp();
  }
  const auto start_copy = [&](__half *to, const __half *cache, int tile, int block) {
    const int64_t at = ((int64_t)block * a.kv_heads + kv_head) * KV_BLOCK_TOKENS * a.head_dim;
    copy_tile<D>(to, cache + at, a.head_dim, keys - tile * KV_BLOCK_TOKENS, lane);
  };
  const auto copy = [&](__half *to, const __half *cache, int tile, int block) {
    if (tile < end) start_copy(to, cache, tile, block);
    copies_commit();
  };
  const auto block_of = [&](int tile) { return tile < end ? table[tile] : 0; };

  int tile = begin + warp, stage = 0, blocks[STAGES];
#pragma unroll
  for (int i = 0; i < STAGES; i++) blocks[i] = block_of(tile + i * WARPS);
  /* The first copies of a warp are one group. Tiles of earlier steps need not wait; the last one's newest key comes from the kernel ahead. */
  const auto first_copies = [&](bool newest) {
#pragma unroll
    for (int i = 0; i < STAGES; i++) {
      const int of = tile + i * WARPS;
      if (of >= end || (of == tiles - 1) != newest) continue;
      start_copy(stages + i * 2 * TILE, a.keys, of, blocks[i]);
      start_copy(stages + i * 2 * TILE + TILE, a.values, of, blocks[i]);
    }
  };
  first_copies(false);
  wait_for_previous();
  first_copies(true);
#pragma unroll
  for (int i = 0; i < 2 * STAGES; i++) copies_commit();
  split_queries<D>(queries, a.qkv + token * qkv_stride + (int64_t)head * a.head_dim, rows, a.head_dim, a.scale);
  __syncthreads();

  softmax state = softmax_start();
  float sums[D / 8][4] = {};
  int next = block_of(tile + STAGES * WARPS);
  /* Copies are queued as K V K V ...; the oldest one is there when all but the 2 STAGES - 1 latest are. */
  for (; tile < end; tile += WARPS, stage = (stage + 1) % STAGES) {
    __half *keys_here = stages + stage * 2 * TILE, *values_here = keys_here + TILE;
    const int ahead = tile + STAGES * WARPS, block = next;
    next = block_of(ahead + WARPS);
    float scores[4][4];
    copies_wait<2 * STAGES - 1>();
    __syncwarp();
    score_tile<D>(scores, queries, keys_here, lane);
    __syncwarp();
    copy(keys_here, a.keys, ahead, block);
    const int visible = keys - tile * KV_BLOCK_TOKENS;
    if (visible < KV_BLOCK_TOKENS) {
#pragma unroll
      for (int i = 0; i < 16; i++) {
        if (i / 4 * 8 + lane % 4 * 2 + i % 2 >= visible) scores[i / 4][i % 4] = -INFINITY;
      }
    }
    softmax_add(state, scores, sums);
    copies_wait<2 * STAGES - 1>();
    __syncwarp();
    sum_tile<D>(sums, scores, values_here, lane);
    __syncwarp();
    copy(values_here, a.values, ahead, block);
  }
  copies_wait<0>();
  softmax_collect(state);

  /* The warps' sums meet in shared memory, where nobody needs keys any more. */
  __syncthreads();
  float *all_sums = (float *)memory, *all_states = all_sums + WARPS * DECODE_ROWS * D;
  put_sums<D>(all_sums + warp * DECODE_ROWS * D, all_states + warp * DECODE_ROWS * 2, sums, state, lane);
  __syncthreads();
  const int64_t first_part = ((int64_t)blockIdx.z * a.heads + head) * splits + blockIdx.x;
  float *part_states = a.parts + (int64_t)a.run_count * a.heads * splits * a.head_dim;
  for (int i = threadIdx.x; i < rows * D; i += WARPS * 32) {
    const int row = i / D, column = i % D;
    float largest = -INFINITY, sum = 0, weights = 0;
#pragma unroll
    for (int w = 0; w < WARPS; w++) largest = fmaxf(largest, all_states[(w * DECODE_ROWS + row) * 2]);
#pragma unroll
    for (int w = 0; w < WARPS; w++) {
      const float factor = exp2_fast(all_states[(w * DECODE_ROWS + row) * 2] - largest);
      sum += factor * all_sums[(w * DECODE_ROWS + row) * D + column];
      weights += factor * all_states[(w * DECODE_ROWS + row) * 2 + 1];
    }
    const int64_t part = first_part + (int64_t)row * splits;
    if (column < a.head_dim) a.parts[part * a.head_dim + column] = sum;
    if (column == 0) *(float2 *)(part_states + part * 2) = make_float2(largest, weights);
  }
}

/* Joins a context's parts. grid: heads, runs; a team of threads has all columns, four for each thread, and takes parts in turn. */
static __global__ void __launch_bounds__(MERGE_THREADS) merge_kernel(attention_arguments a, int splits) {
  __shared__ float factors[DECODE_SPLITS];
  __shared__ float4 partial[MERGE_THREADS];
  let_next_start();
  wait_for_previous();
  const int32_t *run = a.runs + blockIdx.y * 4;
  const int token = run[0], tiles = a.positions[token] / KV_BLOCK_TOKENS + 1, per_split = tiles_per_split(tiles, splits);
  const int used = (tiles + per_split - 1) / per_split;
  const int64_t row = (int64_t)blockIdx.y * a.heads + blockIdx.x;
  const float2 *states = (const float2 *)(a.parts + (int64_t)a.run_count * a.heads * splits * a.head_dim) + row * splits;
  if (threadIdx.x < 32) {
    float largest = -INFINITY, weights = 0;
    for (int i = threadIdx.x; i < used; i += 32) largest = fmaxf(largest, states[i].x);
    for (int step = 16; step; step /= 2) largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, step));
    for (int i = threadIdx.x; i < used; i += 32) {
      factors[i] = exp2_fast(states[i].x - largest);
      weights += factors[i] * states[i].y;
    }
    for (int step = 16; step; step /= 2) weights += __shfl_xor_sync(~0u, weights, step);
    for (int i = threadIdx.x; i < used; i += 32) factors[i] /= weights;
  }
  __syncthreads();
  const int quads = a.head_dim / 4, teams = MERGE_THREADS / quads, team = threadIdx.x / quads, quad = threadIdx.x % quads;
  const float4 *parts = (const float4 *)(a.parts + row * splits * a.head_dim) + quad;
  float4 sum = make_float4(0, 0, 0, 0);
  if (team < teams) {
#pragma unroll 4
    for (int i = team; i < used; i += teams) {
      const float4 part = parts[(int64_t)i * quads];
      const float factor = factors[i];
      sum = make_float4(fmaf(part.x, factor, sum.x), fmaf(part.y, factor, sum.y), fmaf(part.z, factor, sum.z), fmaf(part.w, factor, sum.w));
    }
  }
  partial[threadIdx.x] = sum;
  __syncthreads();
  if (team == 0) {
    for (int i = 1; i < teams; i++) {
      const float4 other = partial[i * quads + quad];
      sum = make_float4(sum.x + other.x, sum.y + other.y, sum.z + other.z, sum.w + other.w);
    }
    ((float4 *)(a.out.rows + ((int64_t)token * a.heads + blockIdx.x) * a.head_dim))[quad] = sum;
  }
  if (!a.forms) return;
  __syncthreads(); /* all are done with the other teams' numbers */
  if (team == 0) partial[quad] = sum;
  __syncthreads();
  if (threadIdx.x >= 32) return;
  const int column = (int)threadIdx.x * LANE_COLUMNS;
  float own[LANE_COLUMNS];
  load_lane(own, (const float *)partial, column, column < a.head_dim);
  store_forms(a.out, a.forms, own, (size_t)token, (int)blockIdx.x * a.head_dim + column, a.heads * a.head_dim, column < a.head_dim);
}

/* Parts of each context for `blocks` blocks in each: one wave of the device when that comes out even enough, four otherwise. */
static int choose_splits(int blocks, int wave, int tiles, int warps) {
  const int wanted = blocks * 4 <= wave ? wave / blocks : (4 * wave + blocks - 1) / blocks;
  const int bounds[] = {DECODE_BLOCKS / blocks, DECODE_SPLITS, (tiles + warps - 1) / warps};
  int splits = wanted;
  for (const int bound : bounds) splits = splits < bound ? splits : bound;
  return splits < 1 ? 1 : splits;
}

template <int D> static int launch_decode(tcu_engine &e, const attention_arguments &a) {
  using shape = decode_shape<D>;
  int shared_bytes = 0;
  CHECK_CUDA(cudaDeviceGetAttribute(&shared_bytes, cudaDevAttrMaxSharedMemoryPerMultiprocessor, e.device));
  const int row_tiles = (a.group + DECODE_ROWS - 1) / DECODE_ROWS, wave = e.multiprocessors * (shared_bytes / (shape::BYTES + 1024));
  const int tiles = (e.step.most_keys + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
  const int splits = choose_splits(a.run_count * a.kv_heads * row_tiles, wave, tiles, shape::WARPS);
  const uint64_t floats = (uint64_t)a.run_count * (uint64_t)a.heads * (uint64_t)splits * (uint64_t)(a.head_dim + 2);
  if (floats > e.b.parts_floats) return failed(TCU_SHAPE, "attention: parts of %llu floats do not fit", (unsigned long long)floats);
  CHECK_CUDA(cudaFuncSetAttribute(decode_kernel<D>, cudaFuncAttributeMaxDynamicSharedMemorySize, shape::BYTES));
  const dim3 grid((unsigned)splits, (unsigned)(a.kv_heads * row_tiles), (unsigned)a.run_count);
  launch_after(e, decode_kernel<D>, grid, shape::WARPS * 32, shape::BYTES, a);
  CHECK_LAUNCH("decode_kernel");
  launch_after(e, merge_kernel, dim3((unsigned)a.heads, (unsigned)a.run_count), MERGE_THREADS, 0, a, splits);
  CHECK_LAUNCH("merge_kernel");
  return TCU_OK;
}

int attend_decode(tcu_engine &e, const attention_arguments &arguments) {
  if (arguments.head_dim <= 32) return launch_decode<32>(e, arguments);
  if (arguments.head_dim <= 64) return launch_decode<64>(e, arguments);
  if (arguments.head_dim <= 128) return launch_decode<128>(e, arguments);
  return launch_decode<256>(e, arguments);
}
