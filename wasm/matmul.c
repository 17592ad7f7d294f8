/*
 * matmul and gated: the loops over tokens and panels around a format's dot product. Tokens are taken in chunks, so that scratch is bounded; within
 * a chunk each panel is read once. Scratch: the chunk's results, then prepared records (some formats), then what a format unpacks to.
 */
#include "activations.h"
#include "exp.h"
#include "formats.h"
#include "kernels.h"
#include "tiles.h"

/*
 * Panels are unpacked once per chunk of tokens, so chunks are large, unless a small one's records stay in the first-level cache while panel after
 * panel meets them. Prepared records in the build `dot` are read slowly enough for the second level. Widened records are large, and always come in
 * small chunks.
 */
enum { SMALL_CHUNK_TOKENS = 32, FIRST_CACHE_BYTES = 40 << 10 };
enum { RESULT_BYTES = CHUNK_TOKENS * PANEL_ROWS * sizeof(float) };

/* Records that meet STREAMS panels one after the other do so by slices of the panels' columns of at most so many bytes, which stay in the first-level cache. */
enum { STREAMS_SLICE_BYTES = 12 << 10 };

/* A weight matrix as the loops need it. */
struct weights {
  const struct format *format;
  const uint8_t *panels;
  size_t panel_bytes;
};

/* The activation records of one chunk of tokens as a format takes them: q8 records, of which a q16 record is two. */
struct chunk {
  int digits; /* q8 records of a token, side by side */
  const uint8_t *records[CHUNK_TOKENS];
  size_t block_bytes; /* of a record, where every token has its own */
  uint8_t *scratch; /* what is left for the format */
};

/* Adds the results of each token's digits: f32[tokens, digits, width] becomes f32[tokens, width]. */
static void add_digits(float *sums, int digits, int width, int tokens) {
  if (digits == 1) return;
  for (int t = 0; t < tokens; t++) {
    const float *of_token = sums + Q16_DIGITS * width * t;
    for (int i = 0; i < width; i += 4) wasm_v128_store(sums + width * t + i, wasm_f32x4_add(load(of_token + i), load(of_token + width + i)));
  }
}

static int chunk_tokens(const struct format *format, size_t record_size) {
  const int is_wide = format->prepare_from == 1 && !format->prepare_most, is_slow = SUMS_IN_I32 && format->prepare;
  const int is_small = is_wide || (!is_slow && SMALL_CHUNK_TOKENS * record_size <= FIRST_CACHE_BYTES);
  return is_small ? SMALL_CHUNK_TOKENS : CHUNK_TOKENS;
}

static void begin_chunk(struct chunk *chunk, const struct format *format, int digits, const uint8_t *x, size_t record_size, const int32_t *x_index,
                        int first, int count, int columns, uint8_t *scratch) {
  const int records = digits * count;
  chunk->digits = digits;
  for (int r = 0; r < records; r++) {
    const int t = first + r / digits;
    chunk->records[r] = x + ((size_t)(x_index ? x_index[t] : t) * (size_t)digits + (size_t)(r % digits)) * record_size;
  }
  chunk->block_bytes = record_size / (size_t)(columns / format->elements);
  if (format->prepare && records >= format->prepare_from && !(format->prepare_most && records > format->prepare_most)) {
    const size_t size = (size_t)(columns / format->elements) * (size_t)format->prepared_bytes;
    chunk->block_bytes = (size_t)format->prepared_bytes;
    format->prepare(scratch, chunk->records, columns, records);
    for (int r = 0; r < records; r++, scratch += size) chunk->records[r] = scratch;
  }
  chunk->scratch = (uint8_t *)(((uintptr_t)scratch + 63) & ~(uintptr_t)63);
}

static const uint8_t *panel_at(const struct weights *weights, int row) {
  return weights->panels + (size_t)(row / PANEL_ROWS) * weights->panel_bytes;
}

static void dot(float *out, const struct weights *weights, int row, const struct chunk *chunk, int columns, int count) {
  weights->format->dot(out, panel_at(weights, row), chunk->records, columns, count * chunk->digits, chunk->scratch);
  add_digits(out, chunk->digits, PANEL_ROWS, count);
}

/* out: f32[PAIR, CHUNK_TOKENS, 8] = the panels at row_a of a and at row_b of b, which have the same format. */
static void dot_pair(float *out, const struct weights *a, int row_a, const struct weights *b, int row_b, const struct chunk *chunk, int columns,
                     int count) {
  const uint8_t *const panels[PAIR] = {panel_at(a, row_a), panel_at(b, row_b)};
  const int records = count * chunk->digits;
  if (a->format->dot_pair && records >= UNPACK_FROM_TOKENS) {
    a->format->dot_pair(out, panels, chunk->records, columns, records, chunk->scratch);
  } else {
    for (int p = 0; p < PAIR; p++) a->format->dot(out + p * PAIR_STRIDE, panels[p], chunk->records, columns, records, chunk->scratch);
  }
  for (int p = 0; p < PAIR; p++) add_digits(out + p * PAIR_STRIDE, chunk->digits, PANEL_ROWS, count);
}

/* sums: f32[count, STREAMS, 8] = the panels `at` times the chunk's tokens. */
static void decode(float *sums, const struct format *format, const uint8_t *const *at, const struct chunk *chunk, int columns, int count) {
  enum { SUMS = STREAMS * PANEL_ROWS };
  const int records = count * chunk->digits;
  if (records == 1 || !format->decode_on) {
    for (int r = 0; r < records; r++) format->decode(sums + SUMS * r, at, chunk->records[r], columns, chunk->scratch);
  } else {
    const int blocks = columns / format->elements, most = STREAMS_SLICE_BYTES / (STREAMS * format->panel_bytes);
    const int slices = (blocks + most - 1) / most, slice = (blocks + slices - 1) / slices;
    __builtin_memset(sums, 0, (size_t)(records * SUMS) * sizeof(float));
    for (int first = 0; first < blocks; first += slice) {
      const int size = blocks - first < slice ? blocks - first : slice;
      const uint8_t *from[STREAMS], *parts[STREAM_TOKENS];
      for (int s = 0; s < STREAMS; s++) from[s] = at[s] + first * format->panel_bytes;
      for (int r = 0; r < records; r++) parts[r] = chunk->records[r] + (size_t)first * chunk->block_bytes;
      format->decode_on(sums, from, parts, size * format->elements, records);
    }
  }
  add_digits(sums, chunk->digits, SUMS, count);
}

/* Rows of each of `streams` equal shares of whole panels; what is left over is less than `streams` panels. */
static int stream_rows(int row_begin, int row_end, int streams) {
  return (row_end - row_begin + PANEL_ROWS - 1) / PANEL_ROWS / streams * PANEL_ROWS;
}

/* How many digits the flags say that records have; 0 for flags beyond `known`, and for q16 of a format whose activations are not quantised. */
static int digits_of(const struct format *format, int flags, int known) {
  if ((flags & ~known) != 0) return 0;
  return !(flags & MATMUL_Q16) ? 1 : format->activation == ACTIVATION_F32 ? 0 : Q16_DIGITS;
}

static int shape_is_valid(const struct format *format, int columns, int row_begin, int row_end, int tokens) {
  return columns > 0 && columns % format->elements == 0 && row_begin >= 0 && row_begin % PANEL_ROWS == 0 && row_begin <= row_end && tokens >= 0;
}

/* y[i] (= or +=) scale * (bias[i] + sum[i]) for `rows` <= 8 outputs. */
static void store_rows(float *y, const float *sum, const float *bias, const float *scale, int add, int rows) {
  for (int i = 0; i < rows; i++) {
    float value = sum[i];
    if (bias) value += bias[i];
    if (scale) value *= *scale;
    y[i] = add ? y[i] + value : value;
  }
}

/* The same for a whole panel. */
static void store_panel(float *y, const float *sum, const float *bias, const float *scale, int add) {
  for (int i = 0; i < PANEL_ROWS; i += 4) {
    v128_t value = load(sum + i);
    if (bias) value = wasm_f32x4_add(value, load(bias + i));
    if (scale) value = wasm_f32x4_mul(value, wasm_v128_load32_splat(scale));
    wasm_v128_store(y + i, add ? wasm_f32x4_add(load(y + i), value) : value);
  }
}

/* Where matmul's results go. */
struct output {
  float *y;
  int stride, row_end, add;
  const int32_t *index;
  const float *scale, *bias;
};

/* Stores the 8 sums of the panel at `row` for token t. */
static void store(const struct output *to, const float *sum, int row, int t) {
  float *y = to->y + (size_t)(to->index ? to->index[t] : t) * (size_t)to->stride + row;
  const float *scale = to->scale ? to->scale + t : 0, *bias = to->bias ? to->bias + row : 0;
  if (to->row_end - row >= PANEL_ROWS) store_panel(y, sum, bias, scale, to->add);
  else store_rows(y, sum, bias, scale, to->add, to->row_end - row);
}

int matmul(int id, int flags, float *y, int y_stride, const uint8_t *panels, const uint8_t *x, const int32_t *x_index, const int32_t *y_index,
           const float *scale, const float *bias, int columns, int row_begin, int row_end, int tokens, uint8_t *scratch) {
  const struct format *format = format_by_id(id);
  if (!format) return STATUS_FORMAT;
  if (!shape_is_valid(format, columns, row_begin, row_end, tokens)) return STATUS_SHAPE;
  const int digits = digits_of(format, flags, MATMUL_ADD | MATMUL_Q16);
  if (digits == 0) return STATUS_SHAPE;
  const struct weights weights = {format, panels, panel_size(format, columns)};
  const struct output to = {y, y_stride, row_end, flags & MATMUL_ADD, y_index, scale, bias};
  const size_t record_size = (size_t)record_bytes(format->activation, columns);
  float *sums = (float *)scratch; /* f32[count, 8] or f32[count, STREAMS, 8] */
  const int most = chunk_tokens(format, record_size) / digits;
  for (int first = 0; first < tokens; first += most) {
    const int count = tokens - first < most ? tokens - first : most;
    struct chunk chunk;
    begin_chunk(&chunk, format, digits, x, record_size, x_index, first, count, columns, scratch + PAIR * RESULT_BYTES);
    int row = row_begin;
    if (count * digits <= STREAM_TOKENS) {
      const int rows = stream_rows(row_begin, row_end, STREAMS);
      for (const int end = row_begin + rows; row < end; row += PANEL_ROWS) {
        const uint8_t *at[STREAMS];
        for (int s = 0; s < STREAMS; s++) at[s] = panel_at(&weights, row + s * rows);
        decode(sums, format, at, &chunk, columns, count);
        for (int t = 0; t < count; t++) {
          for (int s = 0; s < STREAMS; s++) store(&to, sums + PANEL_ROWS * (STREAMS * t + s), row + s * rows, first + t);
        }
      }
      row = row_begin + STREAMS * rows;
    }
    for (; row + PANEL_ROWS < row_end; row += PAIR * PANEL_ROWS) {
      dot_pair(sums, &weights, row, &weights, row + PANEL_ROWS, &chunk, columns, count);
      for (int t = 0; t < count; t++) {
        for (int p = 0; p < PAIR; p++) store(&to, sums + p * PAIR_STRIDE + PANEL_ROWS * t, row + p * PANEL_ROWS, first + t);
      }
    }
    for (; row < row_end; row += PANEL_ROWS) {
      dot(sums, &weights, row, &chunk, columns, count);
      for (int t = 0; t < count; t++) store(&to, sums + PANEL_ROWS * t, row, first + t);
    }
  }
  return STATUS_OK;
}

/* h[i] = silu(gate[i]) * up[i] for `rows` <= 8 outputs; gate is overwritten. */
static void store_gated(float *h, float *gate, const float *up, int rows) {
  float *to = rows >= PANEL_ROWS ? h : gate;
  for (int i = 0; i < PANEL_ROWS; i += 4) wasm_v128_store(to + i, wasm_f32x4_mul(silu_f32x4(load(gate + i)), load(up + i)));
  if (to == gate) __builtin_memcpy(h, gate, (size_t)rows * sizeof(float));
}

int gated(int gate_id, int up_id, int flags, float *h, int h_stride, const uint8_t *gate, const uint8_t *up, const uint8_t *x, const int32_t *x_index,
          int columns, int row_begin, int row_end, int tokens, uint8_t *scratch) {
  const struct format *gate_format = format_by_id(gate_id), *up_format = format_by_id(up_id);
  if (!gate_format || !up_format || gate_format->activation != up_format->activation) return STATUS_FORMAT;
  if (!shape_is_valid(gate_format, columns, row_begin, row_end, tokens)) return STATUS_SHAPE;
  if (!shape_is_valid(up_format, columns, row_begin, row_end, tokens)) return STATUS_SHAPE;
  const int digits = digits_of(gate_format, flags, MATMUL_Q16);
  if (digits == 0) return STATUS_SHAPE;
  const struct weights gate_weights = {gate_format, gate, panel_size(gate_format, columns)};
  const struct weights up_weights = {up_format, up, panel_size(up_format, columns)};
  const size_t record_size = (size_t)record_bytes(gate_format->activation, columns);
  float *gates = (float *)scratch, *ups = (float *)(scratch + RESULT_BYTES); /* f32[count, 8] each */
  /* Two formats have room for their own prepared records when chunks are small. */
  const int most = (gate_format == up_format ? chunk_tokens(gate_format, record_size) : SMALL_CHUNK_TOKENS) / digits;
  for (int first = 0; first < tokens; first += most) {
    const int count = tokens - first < most ? tokens - first : most;
    struct chunk gate_chunk, up_chunk;
    begin_chunk(&gate_chunk, gate_format, digits, x, record_size, x_index, first, count, columns, scratch + PAIR * RESULT_BYTES);
    if (gate_format != up_format) {
      begin_chunk(&up_chunk, up_format, digits, x, record_size, x_index, first, count, columns, gate_chunk.scratch);
      gate_chunk.scratch = up_chunk.scratch;
    }
    int row = row_begin;
    if (count * digits <= STREAM_TOKENS && gate_format == up_format) {
      const int rows = stream_rows(row_begin, row_end, STREAMS / 2);
      for (const int end = row_begin + rows; row < end; row += PANEL_ROWS) {
        const uint8_t *at[STREAMS];
        for (int s = 0; s < STREAMS; s++) at[s] = panel_at(s % 2 ? &up_weights : &gate_weights, row + s / 2 * rows);
        decode(gates, gate_format, at, &gate_chunk, columns, count);
        for (int t = 0; t < count; t++) {
          for (int s = 0; s < STREAMS; s += 2) {
            const int to = row + s / 2 * rows;
            float *sums = gates + PANEL_ROWS * (STREAMS * t + s);
            store_gated(h + (size_t)(first + t) * (size_t)h_stride + to, sums, sums + PANEL_ROWS, row_end - to);
          }
        }
      }
      row = row_begin + STREAMS / 2 * rows;
    }
    for (; row < row_end; row += PANEL_ROWS) {
      if (gate_format == up_format) {
        dot_pair(gates, &gate_weights, row, &up_weights, row, &gate_chunk, columns, count);
      } else {
        dot(gates, &gate_weights, row, &gate_chunk, columns, count);
        dot(ups, &up_weights, row, &up_chunk, columns, count);
      }
      for (int t = 0; t < count; t++)
        store_gated(h + (size_t)(first + t) * (size_t)h_stride + row, gates + PANEL_ROWS * t, ups + PANEL_ROWS * t, row_end - row);
    }
  }
  return STATUS_OK;
}
