/*
 * Products of many tokens, tile by tile. A tile is TILE_ROWS rows (F32: fewer) of a matrix times 64 or 128 vectors, of which a token of quantised
 * activations has `digits`; a block of threads works one out.
 *
 * tiles.cu            matmul_tiles, and which kernel a format has
 * tiles_quantized.cu  8-bit tensor cores
 * tiles_float.cu      F16, BF16: 16-bit tensor cores; F32: multiply-adds
 * experts.cu          lists of tiles grouped by expert
 */
#pragma once
#include "engine.cuh"
#include "formats.cuh"

enum { TILE_ROWS = 128, TILE_THREADS = 256 };

/*
 * y[y_index[t]][m * rows + r] (=, +=) scale[t] * (bias[r] + sum_c W_m[r][c] * x[x_index[t]][c])   for the one or two matrices m
 *
 * Tokens are 0 ... tokens - 1 and belong to one matrix; or `tiles` lists (expert, first t) of each tile, and an expert's t end at offsets[expert + 1].
 */
struct tile_job {
  const uint8_t *weights[2]; /* [1]: of the same format and shape, or null */
  uint64_t expert_bytes[2];
  int rows, columns;
  activations x;
  const int32_t *x_index, *y_index; /* null: t itself */
  const float *scale, *bias;        /* null: 1, 0 */
  float *y;
  int64_t y_stride;
  bool add;
  int tokens, tile_tokens;          /* all, and those of a tile: 64 or 128, or half as many where tokens have two digits */
  const int32_t *tiles, *offsets; /* groups.tiles and groups.offsets, or null */
};

/* Whether the tiles of a format may have 128 vectors. */
bool has_wide_tiles(int format);

/* Queues a job with tiles of 64 or 128 vectors. `token_tiles`: how many of job.tile_tokens, the most there can be when job.tiles lists them. */
int tile_product(tcu_engine &e, int format, const tile_job &job, int tile_vectors, int token_tiles);

/* The same for the formats of one file. */
int quantized_tiles(tcu_engine &e, int format, const tile_job &job, int tile_vectors, int token_tiles);
int float_tiles(tcu_engine &e, int format, const tile_job &job, int token_tiles);

/* Where a block's tile lies; count <= 0: nowhere. */
struct tile_place {
  int matrix, expert;
  int row;   /* first row */
  int token; /* first t */
  int count; /* tokens */
};

/*
 * The tile of this block. One matrix: token tiles follow each other, so that blocks at work together share weights. Experts: row tiles do, so that
 * they share the tokens' rows, and an expert's next tile comes soon enough to find the weights in the cache.
 */
__device__ __forceinline__ tile_place place_of(const tile_job &job, int tile_rows) {
  const int row_tile = job.tiles ? blockIdx.x : blockIdx.y, token_tile = job.tiles ? blockIdx.y : blockIdx.x;
  const int matrix_tiles = (job.rows + tile_rows - 1) / tile_rows;
  tile_place place = {row_tile / matrix_tiles, 0, row_tile % matrix_tiles * tile_rows, token_tile * job.tile_tokens, 0};
  int end = job.tokens;
  if (job.tiles) {
    if (token_tile >= job.tiles[0]) return place;
    place.expert = job.tiles[1 + 2 * token_tile];
    place.token = job.tiles[2 + 2 * token_tile];
    end = job.offsets[place.expert + 1];
  }
  place.count = min(end - place.token, job.tile_tokens);
  return place;
}

/* Blocks of a job's grid. */
inline dim3 grid_of(const tile_job &job, int tile_rows, int token_tiles) {
  const int row_tiles = (job.weights[1] ? 2 : 1) * ((job.rows + tile_rows - 1) / tile_rows);
  return job.tiles ? dim3(row_tiles, token_tiles) : dim3(token_tiles, row_tiles);
}

/* Where the row of x that a tile's token t has begins; tokens that a tile lacks read as its first. */
__device__ __forceinline__ int x_row_of(const tile_job &job, const tile_place &place, int t) {
  const int at = place.token + (t < place.count ? t : 0);
  return job.x_index ? job.x_index[at] : at;
}

/* Where the results of the tile's token t go, which exists, and the factor on them. */
struct sum_target {
  float *y; /* of row 0 of place.matrix */
  float scale;
};
__device__ __forceinline__ sum_target target_of(const tile_job &job, const tile_place &place, int t) {
  const int at = place.token + t;
  return {job.y + (job.y_index ? job.y_index[at] : at) * job.y_stride + (int64_t)place.matrix * job.rows, job.scale ? job.scale[at] : 1.0f};
}
__device__ __forceinline__ void store_sum(const tile_job &job, const sum_target &target, int row, float sum, float bias) {
  if (row >= job.rows) return;
  sum = (sum + bias) * target.scale;
  target.y[row] = job.add ? target.y[row] + sum : sum;
}
__device__ __forceinline__ float bias_of(const tile_job &job, int row) { return job.bias && row < job.rows ? job.bias[row] : 0.0f; }

/*
 * Stores what a lane has of its warp's sums: rows 16 m from `warp_row` on, vectors 8 n from `warp_vector` on, [m][n] as mma.cuh's d. Two neighbouring
 * vectors are one lane's, so it has both digits of a token.
 */
template <int ROW_STEPS, int TOKEN_STEPS>
__device__ __forceinline__ void store_sums(const tile_job &job, const tile_place &place, int digits, const float (&sums)[ROW_STEPS][TOKEN_STEPS][4],
                                           int warp_row, int warp_vector) {
  const int lane = threadIdx.x % 32, row = place.row + warp_row + lane / 4;
  float bias[ROW_STEPS][2];
  UNROLL for (int i = 0; i < 2 * ROW_STEPS; i++) bias[i / 2][i % 2] = bias_of(job, row + 8 * i);
  UNROLL for (int j = 0; j < 2 * TOKEN_STEPS; j++) {
    const int vector = warp_vector + j / 2 * 8 + lane % 4 * 2 + j % 2, t = digits == 2 ? vector / 2 : vector;
    if (t < place.count && (digits == 1 || j % 2 == 0)) {
      const sum_target target = target_of(job, place, t);
      UNROLL for (int i = 0; i < 2 * ROW_STEPS; i++) {
        const float *pair = &sums[i / 2][j / 2][i % 2 * 2];
        store_sum(job, target, row + 8 * i, digits == 2 ? pair[0] + pair[1] : pair[j % 2], bias[i / 2][i % 2]);
      }
    }
  }
}
