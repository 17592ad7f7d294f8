/*
 * The two products of attention over one block of the cache, for a batch of queries: scores = q . keys, and sums += weights . values.
 *
 * A page's reader must give the prefetchers time, which work ahead within a page and stop at its end: so the strips of a block's keys take turns, and so
 * do the halves of its values. Each is a page of its own where head_dim is 128.
 */
#pragma once
#include "attention_wide.h"

/* V8 makes 256-bit vectors of small functions more reliably than of large ones. */
#define APART static __attribute__((noinline))

enum {
  LANES = 8,         /* partial sums of weights per query: one 256-bit vector */
  BATCH_QUERIES = 16, /* queries that go through a block together: what they need stays in the nearest cache */
  PART_PAIRS = 16,   /* pairs of head_dim after which the other strip has its turn: 1 KiB */
};

/* The softmax of one query over some keys: the largest score and the sum of 2^(score - largest). Scores are in units of ln 2. */
struct softmax {
  float largest, sum;
};

/* The queries of a tile, all in scratch. */
struct tile {
  int group, head_dim;
  int is_wide;            /* one token, whose queries are in wide_q too */
  float *sums;            /* f32[queries, head_dim]: weights . values of this chunk */
  int32_t *q;             /* i16[queries, head_dim], in pairs */
  float *lanes;           /* f32[queries, LANES]: sums of weights of this chunk */
  float *q_scales;        /* f32[queries], in units of ln 2 */
  float *largest;         /* f32[queries], of this chunk */
  struct softmax *totals; /* [queries]: of all chunks so far */
  int32_t *wide_q;        /* of a single token: see attention_wide.h */
  /* of one block, in the order of token_place: */
  float *value_scales; /* f32[32]: 0 for tokens that are not visible */
  /* of the queries of a batch and one block: */
  int32_t *products; /* i32[BATCH_QUERIES, 32]: q . keys */
  float *scores;     /* f32[BATCH_QUERIES, 32] */
  float *scaled;     /* f32[BATCH_QUERIES, 32]: weights times the values' scales */
  int32_t *weights;  /* i16[BATCH_QUERIES, 32], in pairs */
  float *most;       /* f32[BATCH_QUERIES, LANES]: the largest of each lane of `scaled` */
  float *added;      /* f32[BATCH_QUERIES, LANES]: the sums of the lanes of `scaled` */
  int32_t *wide_weights;
  float *factors;    /* f32[BATCH_QUERIES]: what a weight of 1 stands for, and the reciprocal */
  float *inverses;
};

static struct tile make_tile(uint8_t *scratch, int group, int head_dim) {
  const size_t width = (size_t)head_dim, queries = (size_t)(group > ATTENTION_TILE_QUERIES ? group : ATTENTION_TILE_QUERIES);
  struct tile tile = {.group = group, .head_dim = head_dim, .products = (int32_t *)scratch};
  tile.scores = (float *)(tile.products + BATCH_QUERIES * KV_BLOCK_TOKENS);
  tile.scaled = tile.scores + BATCH_QUERIES * KV_BLOCK_TOKENS;
  tile.weights = (int32_t *)(tile.scaled + BATCH_QUERIES * KV_BLOCK_TOKENS);
  tile.most = (float *)(tile.weights + BATCH_QUERIES * KV_BLOCK_TOKENS / 2);
  tile.added = tile.most + BATCH_QUERIES * LANES;
  tile.factors = tile.added + BATCH_QUERIES * LANES;
  tile.inverses = tile.factors + BATCH_QUERIES;
  tile.value_scales = tile.inverses + BATCH_QUERIES;
  tile.sums = tile.value_scales + KV_BLOCK_TOKENS;
  tile.q = (int32_t *)(tile.sums + queries * width);
  tile.lanes = (float *)(tile.q + queries * width / 2);
  tile.q_scales = tile.lanes + queries * LANES;
  tile.largest = tile.q_scales + queries;
  tile.totals = (struct softmax *)(tile.largest + queries);
  tile.wide_q = (int32_t *)(((size_t)(tile.totals + queries) + 31) & ~(size_t)31);
  tile.wide_weights = tile.wide_q + BATCH_QUERIES * width / 2 * WIDE_LANES;
  return tile;
}

/* sum: i32[rows, 4 * vectors] += the products of `depth` pairs at a, rows a_stride apart, with those at b: i16[depth, 4 * vectors, 2]. */
INLINE void sum_products(v128_t *sum, const int32_t *a, int a_stride, const int16_t *b, int depth, const int rows, const int vectors) {
  NO_UNROLL for (int k = 0; k < depth; k++, b += 8 * vectors, a++) {
    UNROLL for (int i = 0; i < rows; i++) {
      const v128_t pair = wasm_v128_load32_splat(a + i * a_stride);
      UNROLL for (int j = 0; j < vectors; j++) {
        sum[i * vectors + j] = wasm_i32x4_add(wasm_i32x4_dot_i16x8(load(b + 8 * j), pair), sum[i * vectors + j]);
      }
    }
  }
}

/* products: i32[rows, 32], 16 of each (+=, or = with is_first) a part of q . keys of one strip. */
INLINE void multiply_keys(int32_t *products, const int32_t *q, int q_stride, const int16_t *keys, int pairs, int is_first, const int rows) {
  v128_t sum[16];
  UNROLL for (int i = 0; i < 4 * rows; i++) sum[i] = is_first ? wasm_i32x4_splat(0) : load(products + i / 4 * KV_BLOCK_TOKENS + 4 * (i % 4));
  sum_products(sum, q, q_stride, keys, pairs, rows, 4);
  UNROLL for (int i = 0; i < 4 * rows; i++) wasm_v128_store(products + i / 4 * KV_BLOCK_TOKENS + 4 * (i % 4), sum[i]);
}

/* sums: f32[rows, head_dim], 4 * vectors of each += weights . values of one column. */
INLINE void multiply_values(float *sums, int head_dim, const int32_t *weights, const float *factors, const int16_t *values, const int rows,
                            const int vectors) {
  v128_t sum[16];
  UNROLL for (int i = 0; i < rows * vectors; i++) sum[i] = wasm_i32x4_splat(0);
  sum_products(sum, weights, KV_BLOCK_TOKENS / 2, values, KV_BLOCK_TOKENS / 2, rows, vectors);
  UNROLL for (int i = 0; i < rows * vectors; i++) {
    const float *to = sums + i / vectors * head_dim + 4 * (i % vectors);
    sum[i] = madd(wasm_f32x4_convert_i32x4(sum[i]), wasm_v128_load32_splat(factors + i / vectors), load(to));
  }
  UNROLL for (int i = 0; i < rows * vectors; i++) wasm_v128_store(sums + i / vectors * head_dim + 4 * (i % vectors), sum[i]);
}

/* products of queries first .. first + count of the tile with one block's keys. */
APART void score_block(const struct tile *tile, int first, int count, const int16_t *block) {
  const int pairs = tile->head_dim / 2;
  for (int begin = 0; begin < pairs; begin += PART_PAIRS) {
    const int depth = begin + PART_PAIRS < pairs ? PART_PAIRS : pairs - begin;
    NO_UNROLL for (int strip = 0; strip < KV_BLOCK_TOKENS; strip += STRIP_TOKENS) {
      const int16_t *keys = block + strip * tile->head_dim + begin * 2 * STRIP_TOKENS;
      const int32_t *q = tile->q + first * pairs + begin;
      int32_t *products = tile->products + strip;
      int query = 0;
      if (tile->is_wide) {
        NO_UNROLL for (; query + WIDE_ROWS <= count; query += WIDE_ROWS) {
          multiply_keys_wide(products + query * KV_BLOCK_TOKENS, tile->wide_q + (query * pairs + begin * WIDE_ROWS) * WIDE_LANES, keys, depth, begin == 0);
        }
      }
      NO_UNROLL for (; query + 4 <= count; query += 4) {
        multiply_keys(products + query * KV_BLOCK_TOKENS, q + query * pairs, pairs, keys, depth, begin == 0, 4);
      }
      NO_UNROLL for (; query < count; query++) {
        multiply_keys(products + query * KV_BLOCK_TOKENS, q + query * pairs, pairs, keys, depth, begin == 0, 1);
      }
    }
  }
}

/* Adds one block's weighted values to the sums of queries first .. first + count. */
APART void sum_block(const struct tile *tile, int first, int count, const int16_t *values) {
  const int head_dim = tile->head_dim, columns = head_dim / COLUMN_WIDTH, half = (columns + 1) / 2;
  NO_UNROLL for (int turn = 0; turn < 2 * half; turn++) {
    const int column = turn / 2 + turn % 2 * half, d = column * COLUMN_WIDTH;
    if (column >= columns) continue;
    int query = 0;
    if (tile->is_wide) {
      NO_UNROLL for (; query + WIDE_ROWS <= count; query += WIDE_ROWS) {
        const int32_t *wide = tile->wide_weights + query * (KV_BLOCK_TOKENS / 2) * WIDE_LANES;
        multiply_values_wide(tile->sums + query * head_dim + d, head_dim, wide, tile->factors + query, values + d * KV_BLOCK_TOKENS);
      }
    }
    NO_UNROLL for (; query < count;) {
      float *sums = tile->sums + (first + query) * head_dim + d;
      const int32_t *weights = tile->weights + query * (KV_BLOCK_TOKENS / 2);
      if (query + 4 <= count) {
        multiply_values(sums, head_dim, weights, tile->factors + query, values + d * KV_BLOCK_TOKENS, 4, 4);
        query += 4;
      } else {
        multiply_values(sums, head_dim, weights, tile->factors + query, values + d * KV_BLOCK_TOKENS, 1, 4);
        query++;
      }
    }
  }
  for (int d = columns * COLUMN_WIDTH; d < head_dim; d += 4) {
    NO_UNROLL for (int query = 0; query < count; query++) {
      const int32_t *weights = tile->weights + query * (KV_BLOCK_TOKENS / 2);
      multiply_values(tile->sums + (first + query) * head_dim + d, head_dim, weights, tile->factors + query, values + d * KV_BLOCK_TOKENS, 1, 1);
    }
  }
}
