/*
 * attend, attend_part and attend_merge. A query is one head of one token. The queries of a tile go through the keys together, block by
 * block, so that a block is widened to f32 once for all of them: scores = q . keys, weights = 2^(score - largest so far), sums += weights .
 * values. Widening takes as long as about 6 queries do; the sums of ATTENTION_TILE_QUERIES still fit in a 256 KiB cache.
 *
 * The softmax starts anew at every chunk of ATTENTION_CHUNK_TOKENS keys, and what the chunks give is merged in order: so chunks may as well
 * be worked out by different workers, with the same result.
 *
 * V8 joins two 128-bit halves into one 256-bit operation when they end in adjacent stores and no store lies between their loads: hence
 * everything is loaded and worked out before it is stored.
 */
#include "attention.h"
#include "exp.h"
#include "kernels.h"
#include "simd.h"

#define NO_UNROLL _Pragma("clang loop unroll(disable)")

enum {
  CHUNK_BLOCKS = ATTENTION_CHUNK_TOKENS / KV_BLOCK_TOKENS,
  LANES = 8, /* partial sums of weights per query: one 256-bit vector */
};

/* In memory and volatile, as in constants.h. */
struct f16_constants {
  v128_t bias;   /* i32: 224 << 23 */
  v128_t least;  /* i32: the sign bit and 224 << 23, which no f32 made of an f16 is without */
  v128_t factor; /* f32: 2^-112 */
};

static const volatile struct f16_constants F16_CONSTANTS = {
    .bias = {224 << 23, 224 << 23, 224 << 23, 224 << 23},
    .least = {(int)0xf0000000, (int)0xf0000000, (int)0xf0000000, (int)0xf0000000},
    .factor = {0x07800000, 0x07800000, 0x07800000, 0x07800000},
};

/*
 * Any four f16 as f32; a zero may lose its sign. A sign extension shifted by 13 has the sign in its first four bits: with 224 or-ed to the exponent,
 * infinite and NaN come out as such, normal numbers 2^112 times too large, and subnormal numbers m * 2^-24 as 2^97 (1 + m / 1024), of which 2^97 is to be
 * taken away and the rest doubled. The smaller of the two answers is right. No operand is a subnormal f32: some CPUs take 150 cycles for those.
 */
INLINE v128_t widen_f16x4(const uint16_t *from, const struct f16_constants *constants) {
  const v128_t biased = wasm_v128_or(wasm_i32x4_shl(wasm_i32x4_load16x4(from), 13), constants->bias);
  const v128_t rest = wasm_f32x4_sub(biased, wasm_v128_and(biased, constants->least));
  return wasm_f32x4_mul(wasm_u32x4_min(wasm_f32x4_add(rest, rest), biased), constants->factor);
}

INLINE void widen_f16x16(float *to, const uint16_t *from, const struct f16_constants *constants) {
  v128_t wide[4];
  UNROLL for (int i = 0; i < 4; i++) wide[i] = widen_f16x4(from + 4 * i, constants);
  UNROLL for (int i = 0; i < 4; i++) wasm_v128_store(to + 4 * i, wide[i]);
}

/* One KV head of one block to f32. Four streams at a time: the hardware's prefetchers stop at every page. */
static void widen_block(float *keys, float *values, const uint8_t *key_block, const uint8_t *value_block, int head_dim) {
  const struct f16_constants constants = {F16_CONSTANTS.bias, F16_CONSTANTS.least, F16_CONSTANTS.factor};
  const int half = KV_BLOCK_TOKENS / 2 * head_dim;
  const uint16_t *key = (const uint16_t *)key_block, *value = (const uint16_t *)value_block;
  for (int i = 0; i < half; i += 16, key += 16, value += 16, keys += 16, values += 16) {
    widen_f16x16(keys, key, &constants);
    widen_f16x16(values, value, &constants);
    widen_f16x16(keys + half, key + half, &constants);
    widen_f16x16(values + half, value + half, &constants);
  }
}

/* c[rows, 4 * vectors] (=, or += with `adds`) a[rows, depth] b[depth, 4 * vectors]; every element of c is summed in the order of depth. */
INLINE void multiply_tile(float *c, int c_stride, const float *a, int a_stride, const float *b, int b_stride, int depth, const int adds,
                          const int rows, const int vectors) {
  v128_t sum[16];
  UNROLL for (int i = 0; i < rows * vectors; i++) {
    sum[i] = adds ? load(c + i / vectors * c_stride + 4 * (i % vectors)) : wasm_f32x4_splat(0);
  }
  for (int k = 0; k < depth; k++, b += b_stride, a++) {
    UNROLL for (int i = 0; i < rows; i++) {
      const v128_t element = wasm_v128_load32_splat(a + i * a_stride);
      UNROLL for (int j = 0; j < vectors; j++) sum[i * vectors + j] = madd(element, load(b + 4 * j), sum[i * vectors + j]);
    }
  }
  UNROLL for (int i = 0; i < rows * vectors; i++) wasm_v128_store(c + i / vectors * c_stride + 4 * (i % vectors), sum[i]);
}

/* c[rows, columns] (=, +=) a[rows, depth] b[depth, columns], whatever the tiles: an element's operations do not depend on them. */
INLINE void multiply(float *c, const float *a, int a_stride, const float *b, int columns, int rows, int depth, const int adds) {
  int row = 0;
  for (; row + 4 <= rows; row += 4, a += 4 * a_stride, c += 4 * columns) {
    int column = 0;
    NO_UNROLL for (; column + 16 <= columns; column += 16) {
      multiply_tile(c + column, columns, a, a_stride, b + column, columns, depth, adds, 4, 4);
    }
    for (; column < columns; column += 4) multiply_tile(c + column, columns, a, a_stride, b + column, columns, depth, adds, 4, 1);
  }
  for (; row < rows; row++, a += a_stride, c += columns) {
    int column = 0;
    NO_UNROLL for (; column + 32 <= columns; column += 32) {
      multiply_tile(c + column, columns, a, a_stride, b + column, columns, depth, adds, 1, 8);
    }
    for (; column < columns; column += 4) multiply_tile(c + column, columns, a, a_stride, b + column, columns, depth, adds, 1, 1);
  }
}

/* The softmax of one query over some keys: the largest score and the sum of 2^(score - largest). Scores are in units of ln 2. */
struct softmax {
  float largest, sum;
};

/* The queries of a tile, all in scratch. */
struct tile {
  int group, head_dim;
  float *keys;            /* f32[head_dim, 32] */
  float *values;          /* f32[32, head_dim] */
  float *q;               /* f32[queries, head_dim], scaled */
  float *scores, *weights; /* f32[queries, 32] */
  float *sums;            /* f32[queries, head_dim]: weights . values of this chunk */
  float *lanes;           /* f32[queries, LANES]: sums of weights of this chunk */
  float *largest;         /* f32[queries], of this chunk */
  struct softmax *totals; /* [queries]: of all chunks so far */
};

static struct tile make_tile(uint8_t *scratch, int group, int head_dim) {
  const size_t width = (size_t)head_dim, queries = (size_t)(group > ATTENTION_TILE_QUERIES ? group : ATTENTION_TILE_QUERIES);
  struct tile tile = {.group = group, .head_dim = head_dim, .keys = (float *)scratch};
  tile.values = tile.keys + KV_BLOCK_TOKENS * width;
  tile.q = tile.values + KV_BLOCK_TOKENS * width;
  tile.scores = tile.q + queries * width;
  tile.weights = tile.scores + queries * KV_BLOCK_TOKENS;
  tile.sums = tile.weights + queries * KV_BLOCK_TOKENS;
  tile.lanes = tile.sums + queries * width;
  tile.largest = tile.lanes + queries * LANES;
  tile.totals = (struct softmax *)(tile.largest + queries);
  return tile;
}

static void scale_row(float *row, float factor, int count) {
  const v128_t factors = wasm_f32x4_splat(factor);
  for (int i = 0; i < count; i += 4) wasm_v128_store(row + i, wasm_f32x4_mul(load(row + i), factors));
}

/*
 * weights: f32[32] = 2^(score - largest), added to lanes. They go to another place than the scores, or LLVM, which knows that the halves of a
 * pair are apart, would store the first before it loads the second.
 */
static void exponentiate(float *weights, float *lanes, const float *scores, float largest) {
  const v128_t less = wasm_f32x4_splat(largest);
  v128_t low = load(lanes), high = load(lanes + 4);
  NO_UNROLL for (int i = 0; i < KV_BLOCK_TOKENS; i += LANES) {
    const v128_t first = exp2_f32x4(wasm_f32x4_sub(load(scores + i), less));
    const v128_t second = exp2_f32x4(wasm_f32x4_sub(load(scores + i + 4), less));
    wasm_v128_store(weights + i, first);
    wasm_v128_store(weights + i + 4, second);
    low = wasm_f32x4_add(low, first);
    high = wasm_f32x4_add(high, second);
  }
  wasm_v128_store(lanes, low);
  wasm_v128_store(lanes + 4, high);
}

/* Makes weights of the scores of one query against one block; sums and lanes are scaled down when a larger score has come. */
static void weigh(const struct tile *tile, int query, int visible, int is_first) {
  float *scores = tile->scores + (size_t)query * KV_BLOCK_TOKENS, *lanes = tile->lanes + (size_t)query * LANES;
  if (visible < KV_BLOCK_TOKENS) {
    for (int i = visible; i < KV_BLOCK_TOKENS; i++) scores[i] = -__builtin_inff();
  }
  v128_t most = load(scores);
  UNROLL for (int i = 4; i < KV_BLOCK_TOKENS; i += 4) most = wasm_f32x4_pmax(most, load(scores + i));
  const float before = tile->largest[query], most_here = max_lanes(most), largest = is_first || most_here > before ? most_here : before;
  if (is_first) {
    for (int i = 0; i < LANES; i++) lanes[i] = 0;
    for (int d = 0; d < tile->head_dim; d++) tile->sums[(size_t)query * (size_t)tile->head_dim + (size_t)d] = 0;
  } else if (largest != before) {
    const float factor = exp2_f32(before - largest);
    scale_row(lanes, factor, LANES);
    scale_row(tile->sums + (size_t)query * (size_t)tile->head_dim, factor, tile->head_dim);
  }
  tile->largest[query] = largest;
  exponentiate(tile->weights + (size_t)query * KV_BLOCK_TOKENS, lanes, scores, largest);
}

/* Queries query_begin <= query < query_end, all of which see the same keys of the widened block. */
static void attend_block(const struct tile *tile, int query_begin, int query_end, int visible, int is_first) {
  const int head_dim = tile->head_dim, count = query_end - query_begin;
  const size_t row = (size_t)query_begin * (size_t)head_dim;
  const size_t block_row = (size_t)query_begin * KV_BLOCK_TOKENS;
  multiply(tile->scores + block_row, tile->q + row, head_dim, tile->keys, KV_BLOCK_TOKENS, count, head_dim, 0);
  for (int query = query_begin; query < query_end; query++) weigh(tile, query, visible, is_first);
  multiply(tile->sums + row, tile->weights + block_row, KV_BLOCK_TOKENS, tile->values, head_dim, count, visible, 1);
}

/* Where one KV head of a sequence lies. */
struct cache {
  const uint8_t *keys, *values;
  const int32_t *block_table;
  int kv_head, kv_heads;
};

/* Works out one chunk for tokens of the tile at ascending positions, all of which see some of it. Token t's queries begin at t * group. */
static void attend_chunk(const struct tile *tile, const struct cache *cache, const int32_t *positions, int token_begin, int token_end,
                         int chunk) {
  const int group = tile->group, first_block = chunk * CHUNK_BLOCKS, last_block = positions[token_end - 1] / KV_BLOCK_TOKENS;
  for (int block = first_block; block <= last_block && block < first_block + CHUNK_BLOCKS; block++) {
    const size_t head = (size_t)cache->block_table[block] * (size_t)cache->kv_heads + (size_t)cache->kv_head;
    const size_t at = head * head_block_bytes(tile->head_dim);
    widen_block(tile->keys, tile->values, cache->keys + at, cache->values + at, tile->head_dim);
    const int is_first = block == first_block, begin = block * KV_BLOCK_TOKENS;
    int token = token_end;
    while (token > token_begin && positions[token - 1] >= begin + KV_BLOCK_TOKENS - 1) token--;
    attend_block(tile, token * group, token_end * group, KV_BLOCK_TOKENS, is_first);
    for (token--; token >= token_begin && positions[token] >= begin; token--) {
      attend_block(tile, token * group, (token + 1) * group, positions[token] + 1 - begin, is_first);
    }
  }
}

/* Adds one chunk's sums to what the chunks before it gave. */
static void merge_chunk(float *out, struct softmax *total, const float *sums, struct softmax part, int head_dim, int is_first) {
  const float largest = is_first || part.largest > total->largest ? part.largest : total->largest;
  const float before = is_first ? 0 : exp2_f32(total->largest - largest), now = exp2_f32(part.largest - largest);
  const v128_t factor_before = wasm_f32x4_splat(before), factor_now = wasm_f32x4_splat(now);
  for (int d = 0; d < head_dim; d += 4) {
    const v128_t added = wasm_f32x4_mul(load(sums + d), factor_now);
    wasm_v128_store(out + d, is_first ? added : madd(load(out + d), factor_before, added));
  }
  total->sum = is_first ? part.sum : total->sum * before + part.sum * now;
  total->largest = largest;
}

static struct softmax chunk_softmax(const struct tile *tile, int query) {
  const float *lanes = tile->lanes + (size_t)query * LANES;
  return (struct softmax){tile->largest[query], sum_lanes(wasm_f32x4_add(load(lanes), load(lanes + 4)))};
}

/* Takes a token's queries, scaled, into the tile. */
static void take_queries(const struct tile *tile, int token, const float *q, float scale) {
  const size_t count = (size_t)tile->group * (size_t)tile->head_dim;
  const v128_t factor = wasm_f32x4_splat(scale * 1.44269504f);
  float *to = tile->q + (size_t)token * count;
  for (size_t i = 0; i < count; i += 4) wasm_v128_store(to + i, wasm_f32x4_mul(load(q + i), factor));
}

static int is_shape(int kv_head, int heads, int kv_heads, int head_dim) {
  return heads > 0 && kv_heads > 0 && heads % kv_heads == 0 && kv_head >= 0 && kv_head < kv_heads && head_dim > 0 && head_dim % 4 == 0;
}

int attend(float *out, int out_stride, const float *q, int q_stride, const uint8_t *key_cache, const uint8_t *value_cache, const int32_t *block_table,
           const int32_t *positions, int token_begin, int token_count, int kv_head, int heads, int kv_heads, int head_dim, float scale, uint8_t *scratch) {
  if (!is_shape(kv_head, heads, kv_heads, head_dim) || token_begin < 0 || token_count < 0) return STATUS_SHAPE;
  const int group = heads / kv_heads, per_tile = group < ATTENTION_TILE_QUERIES ? ATTENTION_TILE_QUERIES / group : 1;
  const struct tile tile = make_tile(scratch, group, head_dim);
  const struct cache cache = {key_cache, value_cache, block_table, kv_head, kv_heads};
  const size_t head = (size_t)kv_head * (size_t)group * (size_t)head_dim;

  for (int first = token_begin; first < token_begin + token_count; first += per_tile) {
    const int left = token_begin + token_count - first, count = left < per_tile ? left : per_tile;
    for (int t = 0; t < count; t++) take_queries(&tile, t, q + (size_t)(first + t) * (size_t)q_stride + head, scale);
    int begin = 0; /* tokens before it see none of the chunk */
    for (int chunk = 0; begin < count; chunk++) {
      attend_chunk(&tile, &cache, positions + first, begin, count, chunk);
      for (int t = begin; t < count; t++) {
        float *to = out + (size_t)(first + t) * (size_t)out_stride + head;
        const int is_last = positions[first + t] < (chunk + 1) * ATTENTION_CHUNK_TOKENS;
        for (int query = t * group; query < (t + 1) * group; query++, to += head_dim) {
          const float *sums = tile.sums + (size_t)query * (size_t)head_dim;
          merge_chunk(to, tile.totals + query, sums, chunk_softmax(&tile, query), head_dim, chunk == 0);
          if (is_last) scale_row(to, 1 / tile.totals[query].sum, head_dim);
        }
        begin += is_last;
      }
    }
  }
  return STATUS_OK;
}

/* Floats of one query's part: its sums, then its softmax. */
static size_t part_floats(int head_dim) { return (size_t)head_dim + 2; }

int attend_part(float *parts, const float *q, const uint8_t *key_cache, const uint8_t *value_cache, const int32_t *block_table,
                int position, int chunk, int kv_head, int heads, int kv_heads, int head_dim, float scale, uint8_t *scratch) {
  if (!is_shape(kv_head, heads, kv_heads, head_dim) || chunk < 0 || position < chunk * ATTENTION_CHUNK_TOKENS) return STATUS_SHAPE;
  const int group = heads / kv_heads;
  const struct tile tile = make_tile(scratch, group, head_dim);
  const struct cache cache = {key_cache, value_cache, block_table, kv_head, kv_heads};
  take_queries(&tile, 0, q + (size_t)kv_head * (size_t)group * (size_t)head_dim, scale);
  attend_chunk(&tile, &cache, &position, 0, 1, chunk);
  float *part = parts + ((size_t)chunk * (size_t)heads + (size_t)kv_head * (size_t)group) * part_floats(head_dim);
  for (int query = 0; query < group; query++, part += part_floats(head_dim)) {
    const struct softmax softmax = chunk_softmax(&tile, query);
    __builtin_memcpy(part, tile.sums + (size_t)query * (size_t)head_dim, (size_t)head_dim * sizeof(float));
    part[head_dim] = softmax.largest;
    part[head_dim + 1] = softmax.sum;
  }
  return STATUS_OK;
}

int attend_merge(float *out, const float *parts, int chunks, int heads, int head_dim, int head_begin, int head_end) {
  if (chunks <= 0 || head_dim <= 0 || head_dim % 4 != 0 || head_begin < 0 || head_end > heads) return STATUS_SHAPE;
  for (int head = head_begin; head < head_end; head++) {
    float *to = out + (size_t)head * (size_t)head_dim;
    struct softmax total;
    for (int chunk = 0; chunk < chunks; chunk++) {
      const float *part = parts + ((size_t)chunk * (size_t)heads + (size_t)head) * part_floats(head_dim);
      merge_chunk(to, &total, part, (struct softmax){part[head_dim], part[head_dim + 1]}, head_dim, chunk == 0);
    }
    scale_row(to, 1 / total.sum, head_dim);
  }
  return STATUS_OK;
}
