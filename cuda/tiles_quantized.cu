/*
 * Tiles of quantised weights on 8-bit tensor cores: TILE_ROWS rows, 64 or 128 vectors (TOKENS), CHUNK columns at a time.
 *
 *     raw blocks --copy--> raw --unpack--> w, w_scales, w_minima --+
 *     activations --copy--> x, x_scales, x_sums -------------------+--> integer products --> f32 sums in registers
 *
 * While the tensor cores work on chunk k, chunk k + 1 is unpacked and the copies of the next are under way; one barrier for each chunk.
 *
 * A product sums 32 columns where both sides' scales hold for 32 of them, otherwise 16. It starts from the bits of the float MAGIC = 1.5 * 2^23, so
 * that its result, read as a float, is MAGIC + dot without a conversion. Then dot * scale = (MAGIC + dot) * scale - MAGIC * scale in one multiply-add:
 * MAGIC * scale is exact, because a weight's scale (f16 times at most 8 bits) has no more than 19 bits.
 */
#include "mma.cuh"
#include "tiles.cuh"

namespace {

enum { CHUNK = 64, CHUNK_GROUPS = CHUNK / GROUP };
/* Bytes from row to row of 8-bit values: eight rows' 16 bytes lie in different banks. */
enum { VALUE_STRIDE = CHUNK + 16 };
enum { WARP_TOKENS = 32, TOKEN_STEPS = WARP_TOKENS / 8 };

__device__ constexpr float MAGIC = 12582912.0f;

template <typename W, int TOKENS> struct shared_tile {
  /* Columns whose products are summed as integers, and scales of one row in a chunk. */
  static constexpr int SUMMED = W::ACTIVATION == ACTIVATION_Q8X32 ? 32 : 16, SCALES = CHUNK / SUMMED;
  /* Raw blocks come chunk by chunk where a block is no longer than a chunk, otherwise block by block. */
  static constexpr int RAW_COLUMNS = W::ELEMENTS > CHUNK ? W::ELEMENTS : CHUNK, RAW_CHUNKS = RAW_COLUMNS / CHUNK;
  static constexpr int RAW_BYTES = RAW_COLUMNS / W::ELEMENTS * W::BYTES;
  /* Whole lines of 16 bytes that hold them wherever they begin; an odd number of lines apart, against bank conflicts. */
  static constexpr int LINES = (RAW_BYTES + 30) / 16, RAW_STRIDE = (LINES | 1) * 16;
  static constexpr int RAW_STAGES = RAW_CHUNKS == 1 ? 2 : 1;

  alignas(16) uint8_t raw[RAW_STAGES][TILE_ROWS * RAW_STRIDE];
  alignas(16) int8_t w[2][TILE_ROWS * VALUE_STRIDE];
  alignas(16) int8_t x[2][TOKENS * VALUE_STRIDE];
  alignas(16) float x_scales[2][TOKENS][CHUNK_GROUPS];
  alignas(16) float x_sums[W::HAS_MINIMUM ? 2 : 1][W::HAS_MINIMUM ? TOKENS : 1][CHUNK_GROUPS];
  float w_scales[2][SCALES][TILE_ROWS]; /* rows in the order of scale_position */
  float w_minima[W::HAS_MINIMUM ? 2 : 1][SCALES][W::HAS_MINIMUM ? TILE_ROWS : 1];
  int32_t x_row[TOKENS];
};

/* Rows r and r + 8 of 16, which one lane needs together, side by side. */
__device__ __forceinline__ int scale_position(int row) { return (row & ~15) | (row & 7) << 1 | (row >> 3 & 1); }

/* Where a tile's weights lie. */
struct tile_weights {
  const uint8_t *matrix;
  int64_t row_bytes;
  int first, last; /* the tile's first row, the matrix's last: rows behind it read as the last and are never stored */
  __device__ __forceinline__ const uint8_t *at(int row, int offset) const { return matrix + min(first + row, last) * row_bytes + offset; }
};

/* Starts copying part `part` (RAW_COLUMNS columns) of the tile's blocks, in whole lines: up to 15 bytes before and after the part come along. */
template <typename W, int TOKENS> __device__ __forceinline__ void fetch_raw(shared_tile<W, TOKENS> &s, const tile_weights &from, int part) {
  typedef shared_tile<W, TOKENS> shape;
  const int offset = part * shape::RAW_BYTES, bytes = min((int)shape::RAW_BYTES, (int)from.row_bytes - offset);
  UNROLL for (int i = 0; i < 2; i++) {
    const int row = threadIdx.x / 4 + i * (TILE_ROWS / 2);
    const uint8_t *begin = from.at(row, offset), *end = begin + bytes;
    const uint8_t *line = (const uint8_t *)((size_t)begin & ~(size_t)15) + threadIdx.x % 4 * 16;
    const uint32_t to = shared_address(s.raw[part % shape::RAW_STAGES]) + row * shape::RAW_STRIDE + threadIdx.x % 4 * 16;
    UNROLL for (int j = 0; j < shape::LINES; j += 4) {
      if (line + 16 * j < end) copy_16(to + 16 * j, line + 16 * j, true);
    }
  }
}

/* Starts copying chunk `chunk` of the tile's activations; columns that do not exist become zeros with a scale of zero. */
template <typename W, int TOKENS>
__device__ __forceinline__ void fetch_x(shared_tile<W, TOKENS> &s, const quantized &x, int columns, int chunk) {
  const int stage = chunk % 2;
  UNROLL for (int i = 0; i < TOKENS * 4; i += TILE_THREADS) {
    const int t = (i + threadIdx.x) / 4, column = chunk * CHUNK + threadIdx.x % 4 * 16;
    copy_16(shared_address(s.x[stage]) + t * VALUE_STRIDE + threadIdx.x % 4 * 16, x.values + (int64_t)s.x_row[t] * columns + column, column < columns);
  }
  const int t = threadIdx.x / 2, half = threadIdx.x % 2 * 2, group = chunk * CHUNK_GROUPS + half, groups = columns / GROUP;
  if (t < TOKENS) {
    const int64_t at = (int64_t)s.x_row[t] * groups + group;
    copy_8(shared_address(&s.x_scales[stage][t][half]), x.scales + at, group < groups);
    if constexpr (W::HAS_MINIMUM) copy_8(shared_address(&s.x_sums[stage][t][half]), x.sums + at, group < groups);
  }
}

/* Unpacks chunk `chunk` of the tile's weights, two groups of 16 for each thread. */
template <typename W, int TOKENS>
__device__ __forceinline__ void unpack_chunk(shared_tile<W, TOKENS> &s, const tile_weights &from, int columns, int chunk) {
  typedef shared_tile<W, TOKENS> shape;
  const int part = chunk / shape::RAW_CHUNKS, stage = chunk % 2, group = threadIdx.x % CHUNK_GROUPS;
  const int in_part = chunk % shape::RAW_CHUNKS * CHUNK_GROUPS + group, in_block = in_part % (W::ELEMENTS / GROUP);
  const bool exists = chunk * CHUNK + group * GROUP < columns;
  UNROLL for (int i = 0; i < 2; i++) {
    const int row = threadIdx.x / CHUNK_GROUPS + i * (TILE_ROWS / 2);
    const int lead = (int)((size_t)from.at(row, part * shape::RAW_BYTES) & 15);
    const uint8_t *raw = s.raw[part % shape::RAW_STAGES] + row * shape::RAW_STRIDE + lead;
    int32_t values[4];
    float scale, minimum;
    W::unpack(raw + in_part / (W::ELEMENTS / GROUP) * W::BYTES, in_block, values, scale, minimum);
    *(int4 *)(s.w[stage] + row * VALUE_STRIDE + group * GROUP) = make_int4(values[0], values[1], values[2], values[3]);
    if (shape::SCALES == CHUNK_GROUPS || group % 2 == 0) {
      const int slot = group * shape::SCALES / CHUNK_GROUPS, position = scale_position(row);
      s.w_scales[stage][slot][position] = exists ? scale : 0;
      if constexpr (W::HAS_MINIMUM) s.w_minima[stage][slot][position] = exists ? minimum : 0;
    }
  }
}

/*
 * sums += the products of chunk `chunk` of a warp's rows (16 ROW_STEPS from `warp_row` on) and tokens (WARP_TOKENS from `warp_token` on).
 * sums[m][n]: as mma.cuh's d, rows 16 m and on, tokens 8 n and on.
 */
template <typename W, int TOKENS, int ROW_STEPS>
__device__ __forceinline__ void multiply_chunk(float (&sums)[ROW_STEPS][TOKEN_STEPS][4], const shared_tile<W, TOKENS> &s, int stage, int warp_row,
                                               int warp_token) {
  typedef shared_tile<W, TOKENS> shape;
  constexpr bool LONG = shape::SUMMED == 32;
  const int lane = threadIdx.x % 32;
  /* One load brings 16 rows of 32 columns, or 32 rows of 16. */
  const uint32_t w = shared_address(s.w[stage]) + (warp_row + (LONG ? lane % 16 : lane)) * VALUE_STRIDE + (LONG ? lane / 16 * 16 : 0);
  const uint32_t x = shared_address(s.x[stage]) + (warp_token + (LONG ? lane / 16 * 8 + lane % 8 : lane)) * VALUE_STRIDE + (LONG ? lane / 8 % 2 * 16 : 0);
  /* Not unrolled: with several steps at once the registers do not suffice. */
#pragma unroll 1
  for (int slot = 0; slot < shape::SCALES; slot++) {
    const int column = slot * shape::SUMMED, group = column / GROUP;
    uint32_t b[TOKEN_STEPS * shape::SUMMED / 16];
    load_matrices(b, x + column);
    if constexpr (LONG) load_matrices(b + 4, x + 16 * VALUE_STRIDE + column);
    float x_scales[TOKEN_STEPS][2], x_sums[TOKEN_STEPS][2];
    UNROLL for (int n = 0; n < 2 * TOKEN_STEPS; n++) {
      const int t = warp_token + n / 2 * 8 + lane % 4 * 2 + n % 2;
      x_scales[n / 2][n % 2] = s.x_scales[stage][t][group];
      if constexpr (W::HAS_MINIMUM) x_sums[n / 2][n % 2] = s.x_sums[stage][t][group] + (LONG ? s.x_sums[stage][t][group + 1] : 0.0f);
    }
    uint32_t a[4];
    UNROLL for (int m = 0; m < ROW_STEPS; m++) {
      if (LONG || m % 2 == 0) load_matrices(a, w + m * 16 * VALUE_STRIDE + column);
      const int position = warp_row + m * 16 + lane / 4 * 2;
      const float2 pair = *(const float2 *)&s.w_scales[stage][slot][position];
      const float scales[2] = {pair.x, pair.y}, offsets[2] = {-MAGIC * pair.x, -MAGIC * pair.y};
      float minima[2] = {0, 0};
      if constexpr (W::HAS_MINIMUM) {
        const float2 both = *(const float2 *)&s.w_minima[stage][slot][position];
        minima[0] = both.x, minima[1] = both.y;
      }
      UNROLL for (int n = 0; n < TOKEN_STEPS; n++) {
        int32_t d[4];
        if constexpr (LONG) multiply_s8_32(d, a, b + 2 * n, __float_as_int(MAGIC));
        else multiply_s8_16(d, a + m % 2 * 2, b + n, __float_as_int(MAGIC));
        UNROLL for (int i = 0; i < 4; i++) {
          float &sum = sums[m][n][i];
          sum = fmaf(fmaf(__int_as_float(d[i]), scales[i / 2], offsets[i / 2]), x_scales[n][i % 2], sum);
          if constexpr (W::HAS_MINIMUM) sum = fmaf(-minima[i / 2], x_sums[n][i % 2], sum);
        }
      }
    }
  }
}

template <typename W, int TOKENS> __global__ void __launch_bounds__(TILE_THREADS, 2) quantized_tile(const __grid_constant__ tile_job job) {
  typedef shared_tile<W, TOKENS> shape;
  constexpr int TOKEN_WARPS = TOKENS / WARP_TOKENS, ROW_WARPS = TILE_THREADS / 32 / TOKEN_WARPS, WARP_ROWS = TILE_ROWS / ROW_WARPS;
  extern __shared__ __align__(16) uint8_t memory[];
  shape &s = *(shape *)memory;

  const tile_place place = place_of(job, TILE_ROWS);
  const int digits = job.x.digits;
  if (place.count <= 0) return;
  const uint8_t *matrix = place.matrix ? job.weights[1] + place.expert * job.expert_bytes[1] : job.weights[0] + place.expert * job.expert_bytes[0];
  const tile_weights from = {matrix, (int64_t)(job.columns / W::ELEMENTS) * W::BYTES, place.row, job.rows - 1};
  const quantized &x = W::ACTIVATION == ACTIVATION_Q8X32 ? job.x.q8x32 : job.x.q8x256;
  if (threadIdx.x < TOKENS) s.x_row[threadIdx.x] = x_row_of(job, place, threadIdx.x / digits) * digits + threadIdx.x % digits;
  __syncthreads();

  const int chunks = (job.columns + CHUNK - 1) / CHUNK;
  fetch_raw(s, from, 0);
  if (shape::RAW_STAGES == 2 && chunks > 1) fetch_raw(s, from, 1);
  fetch_x(s, x, job.columns, 0);
  await_copies();
  __syncthreads();
  unpack_chunk(s, from, job.columns, 0);

  const int warp = threadIdx.x / 32, warp_row = warp % ROW_WARPS * WARP_ROWS, warp_token = warp / ROW_WARPS * WARP_TOKENS;
  float sums[WARP_ROWS / 16][TOKEN_STEPS][4] = {};
  for (int k = 0; k < chunks; k++) {
    await_copies();
    __syncthreads();
    if (k + 1 < chunks) {
      fetch_x(s, x, job.columns, k + 1);
      if (shape::RAW_STAGES == 2 && k + 2 < chunks) fetch_raw(s, from, k + 2);
      unpack_chunk(s, from, job.columns, k + 1);
    }
    if (shape::RAW_STAGES == 1 && (k + 2) % shape::RAW_CHUNKS == 0 && k + 2 < chunks) {
      __syncthreads(); /* everyone has unpacked the last chunk of the blocks in hand */
      fetch_raw(s, from, (k + 2) / shape::RAW_CHUNKS);
    }
    if (warp_token < place.count * digits) multiply_chunk(sums, s, k % 2, warp_row, warp_token);
  }

  store_sums(job, place, digits, sums, warp_row, warp_token);
}

template <typename W, int TOKENS> int launch(tcu_engine &e, const tile_job &job, int token_tiles) {
  const size_t bytes = sizeof(shared_tile<W, TOKENS>);
  static_assert(sizeof(shared_tile<W, TOKENS>) <= 99 * 1024, "shared memory of sm_86, sm_89 and sm_120");
  CHECK_CUDA(cudaFuncSetAttribute(quantized_tile<W, TOKENS>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes));
  quantized_tile<W, TOKENS><<<grid_of(job, TILE_ROWS, token_tiles), TILE_THREADS, bytes, e.stream>>>(job);
  CHECK_LAUNCH("quantized_tile");
  return TCU_OK;
}

} // namespace

int quantized_tiles(tcu_engine &e, int format, const tile_job &job, int tile_vectors, int token_tiles) {
  return with_quantized_format(
      format,
      [&](auto weights) {
        return tile_vectors == 128 ? launch<decltype(weights), 128>(e, job, token_tiles) : launch<decltype(weights), 64>(e, job, token_tiles);
      },
      [&] { return failed(TCU_FORMAT, "no tile product of format %d", format); });
}
