/*
 * Quantised weights times 8-bit activations. The weights are a stream: a warp copies tiles (one row of a pass: up to 1024 columns, 0.3 to 1.1 KB)
 * into its own ring in shared memory with 16-byte asynchronous copies, a few tiles ahead, and works on them from there: blocks of 18 or 34 bytes
 * would otherwise be read two bytes at a time. Lane l has 32 columns of the pass, whose activations stay in its registers from row to row.
 */
#pragma once
#include "matvec.cuh"

enum { RING_TILES = 4, UNIT = 32 };

/* Blocks of W that a warp's lanes cover, and the bytes of a tile in the ring: what precedes the first block in its 16 bytes included. */
template <class W> struct tile {
  enum { BLOCKS = 32 * UNIT / W::ELEMENTS, BYTES = (BLOCKS * W::BYTES + 30) / 16 * 16 };
};

static __device__ __forceinline__ void copy_16(void *shared, const uint8_t *global) {
  const uint32_t to = (uint32_t)__cvta_generic_to_shared(shared);
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
}
static __device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int LEFT> static __device__ __forceinline__ void wait_copies() { asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory"); }

/* Where a warp is in its list of tiles: WARP_ROWS rows of a pass, then the pass MATVEC_WARPS further; after the last pass the next rows. */
struct tile_cursor {
  int pass, row, rows_left; /* row: within the block */
  int job, slice;
  const uint8_t *first; /* the pass's part of the matrix's row 0 */
  int blocks;           /* of a row in this pass */
};

/* The geometry of a call: slices of a row, and the blocks of each but the last. */
struct slicing {
  int slices, slice_blocks, row_blocks, passes;
};

template <class W> static __device__ __forceinline__ void enter_pass(tile_cursor &at, const matvec_call &call, const slicing &cut) {
  at.job = at.pass / cut.slices;
  at.slice = at.pass - at.job * cut.slices;
  at.first = matrix_of(call, at.job) + (size_t)(at.slice * cut.slice_blocks) * W::BYTES;
  at.blocks = min(cut.slice_blocks, cut.row_blocks - at.slice * cut.slice_blocks);
  at.rows_left = WARP_ROWS;
}

template <class W> static __device__ __forceinline__ void advance(tile_cursor &at, const matvec_call &call, const slicing &cut) {
  at.row++;
  if (--at.rows_left > 0) return;
  const int before = at.pass;
  for (at.pass += MATVEC_WARPS, at.row -= WARP_ROWS; at.pass >= cut.passes; at.pass -= cut.passes) at.row += WARP_ROWS;
  if (at.pass != before) enter_pass<W>(at, call, cut);
  else at.rows_left = WARP_ROWS;
}

/* Address of the tile's first block. Rows behind the last one are the last one: nothing outside the matrix is read, and `finish` drops them. */
template <class W> static __device__ __forceinline__ const uint8_t *tile_at(const tile_cursor &at, const matvec_call &call, const slicing &cut, int first_row) {
  return at.first + (size_t)min(first_row + at.row, call.rows - 1) * (size_t)cut.row_blocks * W::BYTES;
}

template <class W> static __device__ __forceinline__ void copy_tile(uint8_t *slot, const uint8_t *from, int blocks) {
  const uint32_t before = (uint32_t)(size_t)from & 15;
  const int bytes = (int)before + blocks * W::BYTES;
  UNROLL for (int at = 0; at < tile<W>::BYTES; at += 512) {
    const int mine = at + (int)(threadIdx.x % 32) * 16;
    if (mine < bytes) copy_16(slot + mine, from - before + mine);
  }
}

/* A lane's part of TOKENS vectors. */
template <class W, int TOKENS> struct lane_vectors {
  int32_t values[TOKENS][8];
  float scales[TOKENS][W::ACTIVATION == ACTIVATION_Q8X256 ? 2 : 1];
  float sums[TOKENS][W::HAS_MINIMUM ? 2 : 1];
};

template <class W, int TOKENS>
static __device__ __forceinline__ void load_vectors(lane_vectors<W, TOKENS> &x, const matvec_call &call, size_t vector, int unit, bool active) {
  const quantized &from = W::ACTIVATION == ACTIVATION_Q8X256 ? call.x.q8x256 : call.x.q8x32;
  UNROLL for (int t = 0; t < TOKENS; t++) {
    const bool wanted = active && t < call.tokens;
    const size_t at = (vector + (size_t)t) * (size_t)call.columns + (size_t)unit * UNIT;
    const int4 zero = make_int4(0, 0, 0, 0);
    const int4 *values = (const int4 *)(from.values + at);
    const int4 a = wanted ? values[0] : zero, b = wanted ? values[1] : zero;
    x.values[t][0] = a.x, x.values[t][1] = a.y, x.values[t][2] = a.z, x.values[t][3] = a.w;
    x.values[t][4] = b.x, x.values[t][5] = b.y, x.values[t][6] = b.z, x.values[t][7] = b.w;
    UNROLL for (int i = 0; i < (W::ACTIVATION == ACTIVATION_Q8X256 ? 2 : 1); i++) x.scales[t][i] = wanted ? from.scales[at / GROUP + i] : 0;
    if (W::HAS_MINIMUM) {
      UNROLL for (int i = 0; i < 2; i++) x.sums[t][i] = wanted ? from.sums[at / GROUP + i] : 0;
    }
  }
}

/* out[t] = a lane's 32 weights times its part of vector t. */
template <class W, int TOKENS>
static __device__ __forceinline__ void dot_unit(float (&out)[TOKENS], const uint8_t *block, int group, const lane_vectors<W, TOKENS> &x) {
  int32_t weights[2][4];
  float scales[2], minima[2];
  UNROLL for (int half = 0; half < 2; half++) W::unpack(block, group + half, weights[half], scales[half], minima[half]);
  UNROLL for (int t = 0; t < TOKENS; t++) {
    int sums[2] = {0, 0};
    UNROLL for (int half = 0; half < 2; half++) {
      UNROLL for (int i = 0; i < 4; i++) sums[half] = __dp4a(weights[half][i], x.values[t][4 * half + i], sums[half]);
    }
    if (W::ACTIVATION == ACTIVATION_Q8X32) {
      out[t] = scales[0] * x.scales[t][0] * (float)(sums[0] + sums[1]);
      if (W::HAS_MINIMUM) out[t] -= minima[0] * (x.sums[t][0] + x.sums[t][1]);
    } else {
      out[t] = scales[0] * (x.scales[t][0] * (float)sums[0]) + scales[1] * (x.scales[t][W::ACTIVATION == ACTIVATION_Q8X256] * (float)sums[1]);
      if (W::HAS_MINIMUM) out[t] -= minima[0] * x.sums[t][0] + minima[1] * x.sums[t][W::HAS_MINIMUM];
    }
  }
}

/* Grid: blocks of rows; pairs, or tokens of MIXED. Shared: every warp's ring, then the partial sums. */
template <class W, int TOKENS>
static __global__ void __launch_bounds__(MATVEC_THREADS, TOKENS == 1 ? 8 : TOKENS == 8 ? 3 : 5) matvec_quantized_kernel(const matvec_call call, const slicing cut) {
  extern __shared__ __align__(16) uint8_t shared[];
  const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
  const int first_row = (int)blockIdx.x * call.block_rows;
  uint8_t *ring = shared + warp * RING_TILES * tile<W>::BYTES;
  float *partial = (float *)(shared + MATVEC_WARPS * RING_TILES * tile<W>::BYTES);

  tile_cursor ahead;
  ahead.pass = warp, ahead.row = 0;
  for (; ahead.pass >= cut.passes; ahead.pass -= cut.passes) ahead.row += WARP_ROWS;
  enter_pass<W>(ahead, call, cut);
  tile_cursor at = ahead;
  int filled = 0;
  for (; filled < RING_TILES - 1; filled++) {
    if (ahead.row < call.block_rows) {
      copy_tile<W>(ring + filled * tile<W>::BYTES, tile_at<W>(ahead, call, cut, first_row), ahead.blocks);
      advance<W>(ahead, call, cut);
    }
    commit_copies();
  }

  lane_vectors<W, TOKENS> x;
  int loaded = -1, slot = 0;
  const int lane_block = lane * UNIT / W::ELEMENTS, lane_group = lane * UNIT % W::ELEMENTS / GROUP;
  while (at.row < call.block_rows) {
    const bool active = lane_block < at.blocks;
    if (loaded != at.pass) {
      const int unit = (at.slice * cut.slice_blocks * W::ELEMENTS) / UNIT + lane;
      load_vectors<W, TOKENS>(x, call, vector_of(call, at.job), unit, active);
      loaded = at.pass;
    }
    wait_copies<RING_TILES - 2>();
    __syncwarp(); /* the tile is there for every lane, and every lane is done with the slot that is filled next */
    if (ahead.row < call.block_rows) {
      copy_tile<W>(ring + filled * tile<W>::BYTES, tile_at<W>(ahead, call, cut, first_row), ahead.blocks);
      advance<W>(ahead, call, cut);
    }
    commit_copies();
    filled = filled + 1 < RING_TILES ? filled + 1 : 0;

    float sums[TOKENS] = {};
    const uint32_t before = (uint32_t)(size_t)tile_at<W>(at, call, cut, first_row) & 15;
    if (active) dot_unit<W, TOKENS>(sums, ring + slot * tile<W>::BYTES + before + lane_block * W::BYTES, lane_group, x);
    const float sum = sum_of_lanes<TOKENS>(sums);
    if (lane < TOKENS) partial[(at.pass * call.block_rows + at.row) * TOKENS + lane] = sum;
    slot = slot + 1 < RING_TILES ? slot + 1 : 0;
    advance<W>(at, call, cut);
  }
  __syncthreads();
  finish<TOKENS>(call, partial, cut.slices, first_row);
}
