/*
 * Quantised weights times 8-bit activations. The weights are a stream: a warp copies tiles (one row of a pass: up to 1024 columns, 0.3 to 1.1 KB)
 * into its own ring in shared memory with 16-byte asynchronous copies, and works on them from there: blocks of 18 or 34 bytes would otherwise be
 * read two bytes at a time. Lane l has 32 columns of the pass, whose activations stay in its registers from row to row.
 *
 * A unit is WARP_ROWS rows of a pass; a warp has a run of units, pass by pass, and the ring holds two or more. The sums of a unit's rows are added
 * over the lanes together, which takes a third of the instructions that one row at a time would. A ring's first filling is under way before the
 * kernel waits for its vectors (launch.cuh), so rings take all of a multiprocessor's shared memory.
 */
#pragma once
#include "matvec.cuh"

enum { WARP_ROWS = 4, LEAST_RING = 2, MOST_RING = 8, UNIT = 32 };

/* Blocks of W that a warp's lanes cover, and the bytes of a tile in the ring: what precedes the first block in its 16 bytes included. */
template <class W> struct tile {
  enum { BLOCKS = 32 * UNIT / W::ELEMENTS, BYTES = (BLOCKS * W::BYTES + 30) / 16 * 16, UNIT_BYTES = WARP_ROWS * BYTES };
};

static __device__ __forceinline__ void copy_16(void *shared, const uint8_t *global) {
  const uint32_t to = (uint32_t)__cvta_generic_to_shared(shared);
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
}
static __device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int LEFT> static __device__ __forceinline__ void wait_copies() { asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory"); }

/* Waits for the oldest of the ring's units. */
static __device__ __forceinline__ void wait_oldest(int ring) {
  switch (ring) {
    case 8: return wait_copies<7>();
    case 6: return wait_copies<5>();
    case 4: return wait_copies<3>();
    case 3: return wait_copies<2>();
    default: return wait_copies<LEAST_RING - 1>();
  }
}

/* The geometry of a call: slices of a row, and the blocks of each but the last; a block's rows in units; a ring's units (wait_oldest has each). */
struct slicing {
  int slices, slice_blocks, row_blocks, passes, groups, ring;
};

/* Where a warp is in its run of units, and what the unit's tiles are. */
struct unit_cursor {
  int pass, group;
  const uint8_t *first; /* the pass's part of the block's first row */
  int blocks;           /* of a row in this pass */
};

template <class W>
static __device__ __forceinline__ void enter_pass(unit_cursor &at, const matvec_call &call, const block_place &place, const slicing &cut) {
  const int job = at.pass / cut.slices, first = (at.pass - job * cut.slices) * cut.slice_blocks;
  at.first = matrix_of(call, place, job) + ((size_t)place.first_row * (size_t)cut.row_blocks + (size_t)first) * W::BYTES;
  at.blocks = min(cut.slice_blocks, cut.row_blocks - first);
}

template <class W>
static __device__ __forceinline__ void advance(unit_cursor &at, const matvec_call &call, const block_place &place, const slicing &cut) {
  if (++at.group < cut.groups) return;
  at.group = 0;
  if (++at.pass < cut.passes) enter_pass<W>(at, call, place, cut);
}

/* Address of a tile's first block. Rows behind the last one are the last one: nothing outside the matrix is read, and `finish` drops them. */
template <class W>
static __device__ __forceinline__ const uint8_t *tile_at(const unit_cursor &at, const block_place &place, const slicing &cut, int row) {
  return at.first + (size_t)min(at.group * WARP_ROWS + row, place.rows - 1 - place.first_row) * (size_t)(cut.row_blocks * W::BYTES);
}

template <class W>
static __device__ __forceinline__ void copy_unit(uint8_t *slot, const unit_cursor &at, const block_place &place, const slicing &cut) {
  const int lane_at = (int)(threadIdx.x % 32) * 16;
  UNROLL for (int row = 0; row < WARP_ROWS; row++) {
    const uint8_t *from = tile_at<W>(at, place, cut, row);
    const uint32_t before = (uint32_t)(size_t)from & 15;
    const int bytes = (int)before + at.blocks * W::BYTES;
    UNROLL for (int i = 0; i < tile<W>::BYTES; i += 512) {
      if (i + lane_at < bytes) copy_16(slot + row * tile<W>::BYTES + i + lane_at, from - before + i + lane_at);
    }
  }
}

/* 32 weights as a lane multiplies them: weight = scale * (byte - OFFSET) - minimum. A format with an offset has one scale and no minima. */
template <class W> struct lane_weights {
  enum { OFFSET = 0 };
  int32_t values[2][4];
  float scales[2], minima[2];
  __device__ __forceinline__ void load(const uint8_t *block, int group) {
    UNROLL for (int half = 0; half < 2; half++) W::unpack(block, group + half, values[half], scales[half], minima[half]);
  }
};

/* Nibbles as they are: taking 8 from the sum of their products is less work than taking it from each. */
template <> struct lane_weights<weights<FORMAT_Q4_0>> {
  enum { OFFSET = 8 };
  int32_t values[2][4];
  float scales[2], minima[2];
  __device__ __forceinline__ void load(const uint8_t *block, int) {
    uint32_t words[4];
    load_words<2>(block + 2, words);
    UNROLL for (int i = 0; i < 4; i++) {
      values[0][i] = (int32_t)(words[i] & 0x0f0f0f0f);
      values[1][i] = (int32_t)(words[i] >> 4 & 0x0f0f0f0f);
    }
    scales[0] = half_to_float(load_u16(block));
  }
};

/* Both groups at once: one word less to load. */
template <> struct lane_weights<weights<FORMAT_Q8_0>> {
  enum { OFFSET = 0 };
  int32_t values[2][4];
  float scales[2], minima[2];
  __device__ __forceinline__ void load(const uint8_t *block, int) {
    uint32_t words[8];
    load_words<2>(block + 2, words);
    UNROLL for (int i = 0; i < 8; i++) values[i / 4][i % 4] = (int32_t)words[i];
    scales[0] = half_to_float(load_u16(block));
  }
};

/* A lane's part of TOKENS vectors. */
template <class W, int TOKENS> struct lane_vectors {
  int32_t values[TOKENS][8];
  int32_t start[TOKENS]; /* what a product begins with: the values' sum times -OFFSET */
  float scales[TOKENS][W::ACTIVATION == ACTIVATION_Q8X256 ? 2 : 1];
  float sums[TOKENS][W::HAS_MINIMUM ? 2 : 1];
};

template <class W, int TOKENS>
static __device__ __forceinline__ void load_vectors(lane_vectors<W, TOKENS> &x, const matvec_call &call, size_t vector, int unit, bool active) {
  const quantized &from = W::ACTIVATION == ACTIVATION_Q8X256 ? call.x.q8x256 : call.x.q8x32;
  UNROLL for (int t = 0; t < TOKENS; t++) {
    const bool wanted = active && t < call.tokens * call.x.digits;
    const size_t at = (vector + (size_t)t) * (size_t)call.columns + (size_t)unit * UNIT;
    const int4 zero = make_int4(0, 0, 0, 0);
    const int4 *values = (const int4 *)(from.values + at);
    const int4 a = wanted ? values[0] : zero, b = wanted ? values[1] : zero;
    x.values[t][0] = a.x, x.values[t][1] = a.y, x.values[t][2] = a.z, x.values[t][3] = a.w;
    x.values[t][4] = b.x, x.values[t][5] = b.y, x.values[t][6] = b.z, x.values[t][7] = b.w;
    x.start[t] = 0;
    if (lane_weights<W>::OFFSET) {
      UNROLL for (int i = 0; i < 8; i++) x.start[t] = __dp4a(x.values[t][i], (int32_t)0xffffffff, x.start[t]);
      x.start[t] *= lane_weights<W>::OFFSET;
    }
    UNROLL for (int i = 0; i < (W::ACTIVATION == ACTIVATION_Q8X256 ? 2 : 1); i++) x.scales[t][i] = wanted ? from.scales[at / GROUP + i] : 0;
    if (W::HAS_MINIMUM) {
      UNROLL for (int i = 0; i < 2; i++) x.sums[t][i] = wanted ? from.sums[at / GROUP + i] : 0;
    }
  }
}

/* out[t] = a lane's 32 weights times its part of vector t. */
template <class W, int TOKENS>
static __device__ __forceinline__ void dot_unit(float *out, const uint8_t *block, int group, const lane_vectors<W, TOKENS> &x) {
  lane_weights<W> w;
  w.load(block, group);
  UNROLL for (int t = 0; t < TOKENS; t++) {
    int sums[2] = {x.start[t], 0};
    UNROLL for (int half = 0; half < 2; half++) {
      UNROLL for (int i = 0; i < 4; i++) sums[half] = __dp4a(w.values[half][i], x.values[t][4 * half + i], sums[half]);
    }
    if (W::ACTIVATION == ACTIVATION_Q8X32) {
      out[t] = w.scales[0] * x.scales[t][0] * (float)(sums[0] + sums[1]);
      if (W::HAS_MINIMUM) out[t] -= w.minima[0] * (x.sums[t][0] + x.sums[t][1]);
    } else {
      out[t] = w.scales[0] * (x.scales[t][0] * (float)sums[0]) + w.scales[1] * (x.scales[t][W::ACTIVATION == ACTIVATION_Q8X256] * (float)sums[1]);
      if (W::HAS_MINIMUM) out[t] -= w.minima[0] * x.sums[t][0] + w.minima[1] * x.sums[t][W::HAS_MINIMUM];
    }
  }
}

/* A unit's sums to `partial`: f32[passes, block_rows, TOKENS]. */
template <class W, int TOKENS>
static __device__ __forceinline__ void compute_unit(float *partial, const uint8_t *slot, const unit_cursor &at, const block_place &place, const slicing &cut,
                                                    const lane_vectors<W, TOKENS> &x) {
  const int lane = (int)threadIdx.x % 32, lane_block = lane * UNIT / W::ELEMENTS, lane_group = lane * UNIT % W::ELEMENTS / GROUP;
  float sums[WARP_ROWS * TOKENS] = {};
  if (lane_block < at.blocks) {
    UNROLL for (int row = 0; row < WARP_ROWS; row++) {
      const uint32_t before = (uint32_t)(size_t)tile_at<W>(at, place, cut, row) & 15;
      dot_unit<W, TOKENS>(sums + row * TOKENS, slot + row * tile<W>::BYTES + before + lane_block * W::BYTES, lane_group, x);
    }
  }
  const float sum = sum_of_lanes<WARP_ROWS * TOKENS>(sums);
  if (lane % (32 / (WARP_ROWS * TOKENS)) == 0) {
    partial[(at.pass * cut.groups + at.group) * WARP_ROWS * TOKENS + lane / (32 / (WARP_ROWS * TOKENS))] = sum;
  }
}

/* Blocks that a multiprocessor has registers for. */
constexpr int blocks_at_once(int tokens) { return tokens == 1 ? 6 : tokens == 8 ? 3 : 4; }

/* Grid: blocks of rows; pairs, or tokens of MIXED. Shared: every warp's ring, then the partial sums. */
template <class W, int TOKENS>
static __global__ void __launch_bounds__(MATVEC_THREADS, blocks_at_once(TOKENS)) matvec_quantized_kernel(const matvec_call call, const slicing cut) {
  extern __shared__ __align__(16) uint8_t shared[];
  const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
  if (!call.early) wait_for_previous();
  const block_place place = place_of(call);
  uint8_t *ring = shared + warp * cut.ring * tile<W>::UNIT_BYTES;
  float *partial = (float *)(shared + MATVEC_WARPS * cut.ring * tile<W>::UNIT_BYTES);

  const int units = cut.passes * cut.groups, begin = warp * units / MATVEC_WARPS, count = (warp + 1) * units / MATVEC_WARPS - begin;
  unit_cursor at = {};
  if (count > 0) {
    at.pass = begin / cut.groups, at.group = begin - at.pass * cut.groups;
    enter_pass<W>(at, call, place, cut);
  }
  unit_cursor ahead = at;
  for (int i = 0; i < cut.ring; i++) {
    if (i < count) {
      copy_unit<W>(ring + i * tile<W>::UNIT_BYTES, ahead, place, cut);
      advance<W>(ahead, call, place, cut);
    }
    commit_copies();
  }
  const float *bias = call.biases[place.matrix];
  if (bias && threadIdx.x == 0) prefetch_line(bias + place.first_row), prefetch_line(bias + min(place.first_row + call.block_rows, place.rows) - 1);
  if (call.early) wait_for_previous();
  let_next_start();

  lane_vectors<W, TOKENS> x, next;
  const auto load_pass = [&](lane_vectors<W, TOKENS> &to, int pass) {
    const int job = pass / cut.slices, first = (pass - job * cut.slices) * cut.slice_blocks;
    const bool active = lane * UNIT / W::ELEMENTS < min(cut.slice_blocks, cut.row_blocks - first);
    load_vectors<W, TOKENS>(to, call, token_of(call, job) * (size_t)call.x.digits, first * W::ELEMENTS / UNIT + lane, active);
  };
  if (count > 0) load_pass(x, at.pass);
  int loaded = at.pass, oldest = 0;
  for (int i = 0; i < count; i++) {
    uint8_t *slot = ring + oldest * tile<W>::UNIT_BYTES;
    oldest = oldest + 1 < cut.ring ? oldest + 1 : 0;
    if (loaded != at.pass) {
      if (TOKENS == 1) x = next;
      else load_pass(x, at.pass);
      loaded = at.pass;
    }
    /* one vector's part for the next pass is on its way long before it is needed */
    if (TOKENS == 1 && (i == 0 || at.group == 0) && at.pass + 1 < cut.passes) load_pass(next, at.pass + 1);
    wait_oldest(cut.ring);
    __syncwarp(); /* the unit is there for every lane */
    compute_unit<W, TOKENS>(partial, slot, at, place, cut, x);
    __syncwarp(); /* every lane is done with the slot */
    if (i + cut.ring < count) {
      copy_unit<W>(slot, ahead, place, cut);
      advance<W>(ahead, call, place, cut);
    }
    commit_copies();
    advance<W>(at, call, place, cut);
  }
  __syncthreads();
  finish<TOKENS>(call, place, partial, cut.slices, call.x.digits);
}
