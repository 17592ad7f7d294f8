/*
 * Attention of runs of any number of tokens, on tensor cores. The queries of a run and a KV head are one list: the first token's heads of the
 * group, the second one's, ...; a block takes a tile of it, so it never mixes sequences, and reads every key up to its last token's once. All
 * of a tile's warps (16 queries each) go through the keys together, KEYS at a time, with the next ones on their way.
 *
 * The grid is as large as the step may need; a block finds its run by counting, and blocks too many end at once. Tiles go from the step's end
 * to its beginning, so that the longest come first.
 *
 * Queries and weights go through the products as two f16 each, rounded and rest, because one would move logits by more than the f16 of keys
 * and values does; sums are f32. The queries' rests wait in shared memory.
 */
#include "attention.cuh"
#include "attention_tile.cuh"

template <int D> struct prefill_shape {
  static constexpr int WARPS = D <= 128 ? 8 : 4;
  static constexpr int ROWS = WARPS * 16;
  static constexpr int KEYS = D <= 128 ? 64 : 32;
  static constexpr int TILE = KEYS * D;
  static constexpr int BYTES = (2 * 2 * TILE + ROWS * D) * 2; /* keys and values of two stages, the queries' rests */
};

/* A tile of one run's queries. */
struct query_tile {
  int token;     /* the run's first one */
  int table;     /* row of block_tables */
  int row, rows; /* first query, and how many the run has */
};

/* Finds tile `index` of the step, counted from its last run's last one; rows 0 when there are fewer. */
static __device__ query_tile find_tile(const attention_arguments &a, int index, int tile_rows) {
  for (int i = a.run_count - 1; i >= 0; i--) {
    const int32_t *run = a.runs + i * 4;
    const int rows = run[1] * a.group, tiles = (rows + tile_rows - 1) / tile_rows;
    if (index < tiles) return {run[0], run[2], (tiles - 1 - index) * tile_rows, rows};
    index -= tiles;
  }
  return {0, 0, 0, 0};
}

/* grid: tiles, kv_heads */
template <int D>
static __global__ void __launch_bounds__(prefill_shape<D>::WARPS * 32) prefill_kernel(attention_arguments a) {
  using shape = prefill_shape<D>;
  constexpr int WARPS = shape::WARPS, KEYS = shape::KEYS, TILE = shape::TILE;
  extern __shared__ __align__(16) __half memory[];
  const query_tile tile = find_tile(a, blockIdx.x, shape::ROWS);
  if (tile.rows == 0) return;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, kv_head = blockIdx.y;
  const int last_row = min(tile.row + shape::ROWS, tile.rows) - 1;
  const int keys = a.positions[tile.token + last_row / a.group] + 1;
  const int32_t *table = a.block_tables + (int64_t)tile.table * a.blocks_per_sequence;

  if (a.head_dim < D) {
    for (int i = threadIdx.x; i < 4 * TILE / 8; i += WARPS * 32) ((uint4 *)memory)[i] = make_uint4(0, 0, 0, 0);
    __syncthreads();
  }
  /* Keys and values behind the last query's are never read: they may be anything. */
  const auto copy = [&](int begin, int stage) {
    __half *to = memory + stage * 2 * TILE;
#pragma unroll
    for (int i = 0; i < KEYS * (D / 8) / (WARPS * 32); i++) {
      const int index = i * WARPS * 32 + threadIdx.x, row = index / (D / 8), chunk = index % (D / 8), key = begin + row;
      if (chunk * 8 >= a.head_dim) continue;
      const bool is_there = key < keys;
      const int block = is_there ? table[key / KV_BLOCK_TOKENS] : 0;
      const int64_t at = (((int64_t)block * a.kv_heads + kv_head) * KV_BLOCK_TOKENS + key % KV_BLOCK_TOKENS) * a.head_dim + chunk * 8;
      copy_16(shared_address(to + chunk_at<D>(row, chunk)), a.keys + at, is_there);
      copy_16(shared_address(to + TILE + chunk_at<D>(row, chunk)), a.values + at, is_there);
    }
    copies_commit();
  };
  copy(0, 0);

  /* This lane's two queries; one that the run does not have is zero, and sees what the last one sees. */
  const int warp_row = tile.row + warp * 16;
  __half *rests = memory + 4 * TILE + warp * 16 * D;
  int positions[2];
  float *out[2];
  uint32_t queries[D / 16][4];
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const int row = warp_row + lane / 4 + i * 8, token = tile.token + min(row, last_row) / a.group;
    const int64_t head = kv_head * a.group + min(row, last_row) % a.group;
    const bool is_there = row <= last_row;
    positions[i] = a.positions[token];
    out[i] = is_there ? a.out.rows + ((int64_t)token * a.heads + head) * a.head_dim : nullptr;
    const float *q = a.qkv + ((int64_t)token * (a.heads + 2 * a.kv_heads) + head) * a.head_dim;
#pragma unroll
    for (int k = 0; k < D / 8; k++) {
      const int column = k * 8 + lane % 4 * 2;
      const float2 x = is_there && column < a.head_dim ? *(const float2 *)(q + column) : make_float2(0, 0);
      const uint32_t rounded = pack(x.x * a.scale, x.y * a.scale);
      queries[k / 2][k % 2 * 2 + i] = rounded;
      *(uint32_t *)(rests + chunk_at<D>(lane / 4 + i * 8, k) + lane % 4 * 2) = pack_rest(rounded, x.x * a.scale, x.y * a.scale);
    }
  }
  /* Of all rows of the warp: all keys up to the first position are seen by everyone, none behind the last by anyone. */
  const int first_position = __shfl_sync(~0u, positions[0], 0);
  const int last_position = warp_row <= last_row ? __shfl_sync(~0u, positions[1], 31) : -1;

  softmax state = softmax_start();
  float sums[D / 8][4] = {};
  for (int begin = 0, stage = 0; begin < keys; begin += KEYS, stage ^= 1) {
    copies_wait<0>();
    __syncthreads(); /* everyone's copies are there, and nobody needs the other stage any more */
    if (begin + KEYS < keys) copy(begin + KEYS, stage ^ 1);
    if (begin > last_position) continue;
    const __half *key_tile = memory + stage * 2 * TILE, *value_tile = key_tile + TILE;

    float scores[KEYS / 8][4] = {};
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
      uint32_t rest[4];
      load_queries<D>(rest, rests, k, lane);
#pragma unroll
      for (int i = 0; i < KEYS / 16; i++) {
        uint32_t key[4];
        load_keys<D>(key, key_tile, 16 * i, k, lane);
        multiply_add(scores[2 * i], rest, key[0], key[1]);
        multiply_add(scores[2 * i + 1], rest, key[2], key[3]);
        multiply_add(scores[2 * i], queries[k], key[0], key[1]);
        multiply_add(scores[2 * i + 1], queries[k], key[2], key[3]);
      }
    }
    if (begin + KEYS - 1 > first_position) {
#pragma unroll
      for (int i = 0; i < KEYS / 8 * 4; i++) {
        const int key = begin + i / 4 * 8 + lane % 4 * 2 + i % 2;
        if (key > positions[i % 4 / 2]) scores[i / 4][i % 4] = -INFINITY;
      }
    }
    softmax_add(state, scores, sums);
#pragma unroll
    for (int i = 0; i < KEYS / 16; i++) {
      const uint32_t weights[4] = {pack(scores[2 * i][0], scores[2 * i][1]), pack(scores[2 * i][2], scores[2 * i][3]),
                                   pack(scores[2 * i + 1][0], scores[2 * i + 1][1]), pack(scores[2 * i + 1][2], scores[2 * i + 1][3])};
      const uint32_t rest[4] = {pack_rest(weights[0], scores[2 * i][0], scores[2 * i][1]), pack_rest(weights[1], scores[2 * i][2], scores[2 * i][3]),
                                pack_rest(weights[2], scores[2 * i + 1][0], scores[2 * i + 1][1]),
                                pack_rest(weights[3], scores[2 * i + 1][2], scores[2 * i + 1][3])};
#pragma unroll
      for (int n = 0; n < D / 16; n++) {
        uint32_t value[4];
        load_values<D>(value, value_tile, 16 * i, n, lane);
        multiply_add(sums[2 * n], rest, value[0], value[1]);
        multiply_add(sums[2 * n + 1], rest, value[2], value[3]);
        multiply_add(sums[2 * n], weights, value[0], value[1]);
        multiply_add(sums[2 * n + 1], weights, value[2], value[3]);
      }
    }
  }

  softmax_collect(state);
#pragma unroll
  for (int row = 0; row < 2; row++) {
    const float factor = 1 / state.sum[row];
    if (!out[row]) continue;
#pragma unroll
    for (int i = 0; i < D / 8; i++) {
      const int column = i * 8 + lane % 4 * 2;
      if (column < a.head_dim) *(float2 *)(out[row] + column) = make_float2(sums[i][2 * row] * factor, sums[i][2 * row + 1] * factor);
    }
  }
}

template <int D> static int launch_prefill(tcu_engine &e, const attention_arguments &a) {
  using shape = prefill_shape<D>;
  CHECK_CUDA(cudaFuncSetAttribute(prefill_kernel<D>, cudaFuncAttributeMaxDynamicSharedMemorySize, shape::BYTES));
  /* Every run adds at most one tile that is not full. */
  const int64_t tiles = (int64_t)e.step.token_count * a.group / shape::ROWS + a.run_count;
  prefill_kernel<D><<<dim3((unsigned)tiles, (unsigned)a.kv_heads), shape::WARPS * 32, shape::BYTES, e.stream>>>(a);
  CHECK_LAUNCH("prefill_kernel");
  return TCU_OK;
}

int attend_prefill(tcu_engine &e, const attention_arguments &arguments) {
  if (arguments.head_dim <= 32) return launch_prefill<32>(e, arguments);
  if (arguments.head_dim <= 64) return launch_prefill<64>(e, arguments);
  if (arguments.head_dim <= 128) return launch_prefill<128>(e, arguments);
  return launch_prefill<256>(e, arguments);
}
