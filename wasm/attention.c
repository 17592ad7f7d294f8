/*
 * attend, attend_part and attend_merge. A query is one head of one token. The queries of a tile go through the keys together, block by
 * block, so that a block is read once for all of them: scores = q . keys, weights = 2^(score - largest so far), sums += weights . values.
 * Queries and weights are rounded to 16-bit integers, as keys and values are (attention.h): queries on a grid of their own, the weights of a block, each
 * times the value's scale, on the finest that WEIGHT_LIMIT and WEIGHTS_LIMIT allow. So a product of two pairs is one operation for 16 of them, and nothing is to be widened.
 *
 * The softmax starts anew at every chunk of ATTENTION_CHUNK_TOKENS keys, and what the chunks give is merged in order: so chunks may as well
 * be worked out by different workers, with the same result.
 *
 * V8 joins two 128-bit halves into one 256-bit operation when they end in adjacent stores and no store lies between their loads: hence
 * everything is loaded and worked out before it is stored.
 */
#include "attention_softmax.h"

enum { CHUNK_BLOCKS = ATTENTION_CHUNK_TOKENS / KV_BLOCK_TOKENS, LINE_FLOATS = 16 };

/* One KV head of one block. */
struct head_block {
  const int16_t *keys, *values;
  const float *key_scales, *value_scales;
};

/* Queries query_begin <= query < query_end, all of which see the same keys of the block. */
static void attend_block(const struct tile *tile, struct head_block block, int query_begin, int query_end, int visible, int is_first) {
  if (query_begin == query_end) return;
  for (int i = 0; i < KV_BLOCK_TOKENS; i += 4) wasm_v128_store(tile->value_scales + i, load(block.value_scales + i));
  for (int token = visible; token < KV_BLOCK_TOKENS; token++) tile->value_scales[token_place(token)] = 0;
  for (int first = query_begin; first < query_end; first += BATCH_QUERIES) {
    const int count = query_end - first < BATCH_QUERIES ? query_end - first : BATCH_QUERIES;
    score_block(tile, first, count, block.keys);
    weigh_block(tile, first, count, block.key_scales, visible, is_first);
    if (tile->is_wide) widen(tile->wide_weights, tile->weights, KV_BLOCK_TOKENS / 2, count);
    sum_block(tile, first, count, block.values);
  }
}

/* Where one KV head of a sequence lies. */
struct cache {
  const uint8_t *keys, *values;
  const int32_t *block_table;
  int kv_head, kv_heads;
};

/*
 * Loads what holds the scales of some blocks, so that what the CPU has not got yet is waited for once and not in every block: they lie where its prefetchers,
 * which follow keys and values, do not look.
 */
static void fetch_scales(const struct cache *cache, int block_begin, int block_end) {
  for (int block = block_begin; block < block_end; block++) {
    const size_t index = head_block_index(cache->block_table[block], cache->kv_head, cache->kv_heads);
    const volatile float *keys = head_block_scales(cache->keys, index), *values = head_block_scales(cache->values, index);
    for (int line = 0; line < KV_BLOCK_TOKENS; line += LINE_FLOATS) {
      (void)keys[line];
      (void)values[line];
    }
  }
}

/* Works out one chunk for tokens of the tile at ascending positions, all of which see some of it. Token t's queries begin at t * group. */
static void attend_chunk(const struct tile *tile, const struct cache *cache, const int32_t *positions, int token_begin, int token_end,
                         int chunk) {
  const int group = tile->group, first_block = chunk * CHUNK_BLOCKS, seen = positions[token_end - 1] / KV_BLOCK_TOKENS + 1;
  const int end_block = seen < first_block + CHUNK_BLOCKS ? seen : first_block + CHUNK_BLOCKS;
  if (tile->is_wide) fetch_scales(cache, first_block, end_block);
  for (int block = first_block; block < end_block; block++) {
    const size_t index = head_block_index(cache->block_table[block], cache->kv_head, cache->kv_heads);
    const size_t at = index * head_block_bytes(tile->head_dim);
    const struct head_block head = {(const int16_t *)(cache->keys + at), (const int16_t *)(cache->values + at),
                                    head_block_scales(cache->keys, index), head_block_scales(cache->values, index)};
    const int is_first = block == first_block, begin = block * KV_BLOCK_TOKENS;
    int token = token_end;
    while (token > token_begin && positions[token - 1] >= begin + KV_BLOCK_TOKENS - 1) token--;
    attend_block(tile, head, token * group, token_end * group, KV_BLOCK_TOKENS, is_first);
    for (token--; token >= token_begin && positions[token] >= begin; token--) {
      attend_block(tile, head, token * group, (token + 1) * group, positions[token] + 1 - begin, is_first);
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
static void take_token(const struct tile *tile, int token, const float *q, float scale) {
  const int head_dim = tile->head_dim;
  for (int query = token * tile->group; query < (token + 1) * tile->group; query++, q += head_dim) {
    const struct grid grid = find_grid(q, head_dim, ELEMENT_LIMIT, NORM_LIMIT);
    const v128_t inverse = wasm_f32x4_splat(grid.inverse);
    int16_t *to = (int16_t *)tile->q + query * head_dim;
    for (int i = 0; i < head_dim; i += 4) {
      const v128_t wide = to_grid(load(q + i), inverse), half = wasm_i8x16_shuffle(wide, wide, 0, 1, 4, 5, 8, 9, 12, 13, 0, 1, 4, 5, 8, 9, 12, 13);
      wasm_v128_store64_lane(to + i, half, 0);
    }
    tile->q_scales[query] = grid.scale * scale * 1.44269504f;
  }
}

/* The same for `tokens` tokens, whose q are q_stride apart: all that the tile will have. */
static void take_tokens(struct tile *tile, int tokens, const float *q, int q_stride, float scale) {
  for (int t = 0; t < tokens; t++) take_token(tile, t, q + (size_t)t * (size_t)q_stride, scale);
  tile->is_wide = tokens == 1 && tile->group <= BATCH_QUERIES;
  if (tile->is_wide) widen(tile->wide_q, tile->q, tile->head_dim / 2, tile->group);
}

static int is_shape(int kv_head, int heads, int kv_heads, int head_dim) {
  return heads > 0 && kv_heads > 0 && heads % kv_heads == 0 && kv_head >= 0 && kv_head < kv_heads && head_dim > 0 && head_dim % 4 == 0 &&
         head_dim <= MAX_HEAD_DIM;
}

int attend(float *out, int out_stride, const float *q, int q_stride, const uint8_t *key_cache, const uint8_t *value_cache, const int32_t *block_table,
           const int32_t *positions, int token_begin, int token_count, int kv_head, int heads, int kv_heads, int head_dim, float scale, uint8_t *scratch) {
  if (!is_shape(kv_head, heads, kv_heads, head_dim) || token_begin < 0 || token_count < 0) return STATUS_SHAPE;
  const int group = heads / kv_heads, per_tile = group < ATTENTION_TILE_QUERIES ? ATTENTION_TILE_QUERIES / group : 1;
  struct tile tile = make_tile(scratch, group, head_dim);
  const struct cache cache = {key_cache, value_cache, block_table, kv_head, kv_heads};
  const size_t head = (size_t)kv_head * (size_t)group * (size_t)head_dim;

  for (int first = token_begin; first < token_begin + token_count; first += per_tile) {
    const int left = token_begin + token_count - first, count = left < per_tile ? left : per_tile;
    take_tokens(&tile, count, q + (size_t)first * (size_t)q_stride + head, q_stride, scale);
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
                int position, int chunk_begin, int chunk_end, int kv_head, int heads, int kv_heads, int head_dim, float scale, uint8_t *scratch) {
  if (!is_shape(kv_head, heads, kv_heads, head_dim) || chunk_begin < 0 || chunk_end <= chunk_begin) return STATUS_SHAPE;
  if (position < 0 || chunk_end - 1 > position / ATTENTION_CHUNK_TOKENS) return STATUS_SHAPE;
  const int group = heads / kv_heads;
  struct tile tile = make_tile(scratch, group, head_dim);
  const struct cache cache = {key_cache, value_cache, block_table, kv_head, kv_heads};
  take_tokens(&tile, 1, q + (size_t)kv_head * (size_t)group * (size_t)head_dim, 0, scale);
  for (int chunk = chunk_begin; chunk < chunk_end; chunk++) {
    attend_chunk(&tile, &cache, &position, 0, 1, chunk);
    float *part = parts + ((size_t)chunk * (size_t)heads + (size_t)kv_head * (size_t)group) * part_floats(head_dim);
    for (int query = 0; query < group; query++, part += part_floats(head_dim)) {
      const struct softmax softmax = chunk_softmax(&tile, query);
      __builtin_memcpy(part, tile.sums + (size_t)query * (size_t)head_dim, (size_t)head_dim * sizeof(float));
      part[head_dim] = softmax.largest;
      part[head_dim + 1] = softmax.sum;
    }
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
