/*
 * The softmax of attention over one block, for a batch of queries: weights of scores. It is done in passes over the batch, each short enough that the CPU
 * works on several queries at once; what one query alone needs is a chain of operations that wait for each other.
 */
#pragma once
#include "attention_tile.h"
#include "exp.h"

/* In memory and volatile, as in constants.h. */
struct power_constants {
  v128_t least, magic, c6, c5, c4, c3, c2, c1, c0, low_half;
};

#define FOUR(x) ((v128_t)(__f32x4){x, x, x, x})

/* 2^r for |r| <= 1/2 is the polynomial of exp2_f32x4. */
static const volatile struct power_constants POWER = {
    .least = FOUR(-64),
    .magic = FOUR(12582912), /* 1.5 * 2^23 */
    .c6 = FOUR(0.00015353362f),
    .c5 = FOUR(0.0013398875f),
    .c4 = FOUR(0.00961843692f),
    .c3 = FOUR(0.0555033237f),
    .c2 = FOUR(0.240226477f),
    .c1 = FOUR(0.693147182f),
    .c0 = FOUR(1),
    .low_half = (v128_t)(__i32x4){0xffff, 0xffff, 0xffff, 0xffff},
};

/* 2^x for x <= 0, as exp2_f32x4 but never below 2^-64: so what is made of it is no subnormal number. NaN stays NaN. */
INLINE v128_t power(v128_t x, struct power_constants c) {
  const v128_t bounded = wasm_f32x4_pmax(x, c.least), shifted = wasm_f32x4_add(bounded, c.magic);
  const v128_t r = wasm_f32x4_sub(bounded, wasm_f32x4_sub(shifted, c.magic));
  v128_t p = madd(c.c6, r, c.c5);
  p = madd(p, r, c.c4);
  p = madd(p, r, c.c3);
  p = madd(p, r, c.c2);
  p = madd(p, r, c.c1);
  p = madd(p, r, c.c0);
  return wasm_i32x4_add(p, wasm_i32x4_shl(shifted, 23));
}

static void scale_row(float *row, float factor, int count) {
  const v128_t factors = wasm_f32x4_splat(factor);
  for (int i = 0; i < count; i += 4) wasm_v128_store(row + i, wasm_f32x4_mul(load(row + i), factors));
}

/* scores of products. */
APART void scale_scores(const struct tile *tile, int first, int count, const float *key_scales) {
  for (int query = 0; query < count; query++) {
    const v128_t scale = wasm_v128_load32_splat(tile->q_scales + first + query);
    const int32_t *products = tile->products + query * KV_BLOCK_TOKENS;
    float *scores = tile->scores + query * KV_BLOCK_TOKENS;
    NO_UNROLL for (int i = 0; i < KV_BLOCK_TOKENS; i += 8) {
      const v128_t low = wasm_f32x4_mul(wasm_f32x4_convert_i32x4(load(products + i)), wasm_f32x4_mul(load(key_scales + i), scale));
      const v128_t high = wasm_f32x4_mul(wasm_f32x4_convert_i32x4(load(products + i + 4)), wasm_f32x4_mul(load(key_scales + i + 4), scale));
      store_pair(scores + i, low, high);
    }
  }
}

/* The largest score of every query, this block's included; sums and lanes are scaled down when it has grown. */
APART void find_largest(const struct tile *tile, int first, int count, int visible, int is_first) {
  const int head_dim = tile->head_dim;
  for (int query = 0; query < count; query++) {
    const int row = first + query;
    float *scores = tile->scores + query * KV_BLOCK_TOKENS, *lanes = tile->lanes + row * LANES, *sums = tile->sums + row * head_dim;
    for (int token = visible; token < KV_BLOCK_TOKENS; token++) scores[token_place(token)] = -__builtin_inff();
    v128_t most = load(scores);
    UNROLL for (int i = 4; i < KV_BLOCK_TOKENS; i += 4) most = wasm_f32x4_pmax(most, load(scores + i));
    const float before = tile->largest[row], most_here = max_lanes(most), largest = is_first || most_here > before ? most_here : before;
    if (is_first) {
      for (int i = 0; i < LANES; i += 4) wasm_v128_store(lanes + i, wasm_f32x4_splat(0));
      for (int d = 0; d < head_dim; d += 4) wasm_v128_store(sums + d, wasm_f32x4_splat(0));
    } else if (largest != before) {
      const float factor = exp2_f32(before - largest);
      scale_row(lanes, factor, LANES);
      scale_row(sums, factor, head_dim);
    }
    tile->largest[row] = largest;
  }
}

/* scaled = 2^(score - largest) * value_scales; the powers are added to lanes. */
APART void exponentiate(const struct tile *tile, int first, int count) {
  const volatile struct power_constants *p = &POWER;
  const struct power_constants c = {p->least, p->magic, p->c6, p->c5, p->c4, p->c3, p->c2, p->c1, p->c0, p->low_half};
  const float *value_scales = tile->value_scales;
  for (int query = 0; query < count; query++) {
    const float *scores = tile->scores + query * KV_BLOCK_TOKENS;
    float *lanes = tile->lanes + (first + query) * LANES, *scaled = tile->scaled + query * KV_BLOCK_TOKENS;
    float *most = tile->most + query * LANES, *added = tile->added + query * LANES;
    const v128_t less = wasm_v128_load32_splat(tile->largest + first + query);
    v128_t low = load(lanes), high = load(lanes + 4), most_low = wasm_i32x4_splat(0), most_high = wasm_i32x4_splat(0);
    v128_t added_low = wasm_i32x4_splat(0), added_high = wasm_i32x4_splat(0);
    NO_UNROLL for (int i = 0; i < KV_BLOCK_TOKENS; i += LANES) {
      const v128_t low_power = power(wasm_f32x4_sub(load(scores + i), less), c), high_power = power(wasm_f32x4_sub(load(scores + i + 4), less), c);
      const v128_t low_scaled = wasm_f32x4_mul(low_power, load(value_scales + i)), high_scaled = wasm_f32x4_mul(high_power, load(value_scales + i + 4));
      low = wasm_f32x4_add(low, low_power);
      high = wasm_f32x4_add(high, high_power);
      added_low = wasm_f32x4_add(added_low, low_scaled);
      added_high = wasm_f32x4_add(added_high, high_scaled);
      /* as in max_magnitude: a NaN counts as the largest of all */
      most_low = wasm_u32x4_max(most_low, low_scaled);
      most_high = wasm_u32x4_max(most_high, high_scaled);
      store_pair(scaled + i, low_scaled, high_scaled);
    }
    store_pair(lanes, low, high);
    store_pair(most, most_low, most_high);
    store_pair(added, added_low, added_high);
  }
}

/* Below it, weights are rounded to zero. It keeps reciprocals finite. */
static const float SMALLEST_WEIGHT = 0x1p-100f;

/* The grid of every query's weights. */
APART void find_factors(const struct tile *tile, int count) {
  for (int query = 0; query < count; query++) {
    const float *most = tile->most + query * LANES, *added = tile->added + query * LANES;
    const float largest = max_magnitude(wasm_u32x4_max(load(most), load(most + 4))), limit = largest < SMALLEST_WEIGHT ? SMALLEST_WEIGHT : largest;
    const float sum = sum_lanes(wasm_f32x4_add(load(added), load(added + 4)));
    const float inverse = sum * WEIGHT_LIMIT > limit * WEIGHTS_LIMIT ? WEIGHTS_LIMIT / sum : WEIGHT_LIMIT / limit;
    tile->factors[query] = 1 / inverse;
    tile->inverses[query] = inverse;
  }
}

/* weights of `scaled`. */
APART void round_weights(const struct tile *tile, int count) {
  const volatile struct power_constants *constants = &POWER;
  const v128_t magic = constants->magic, low_half = constants->low_half;
  for (int query = 0; query < count; query++) {
    const v128_t factor = wasm_v128_load32_splat(tile->inverses + query);
    const float *scaled = tile->scaled + query * KV_BLOCK_TOKENS;
    int32_t *weights = tile->weights + query * (KV_BLOCK_TOKENS / 2);
    UNROLL for (int i = 0; i < 2; i++, scaled += 16) {
      v128_t pairs[2];
      UNROLL for (int j = 0; j < 2; j++) {
        const v128_t even = madd(load(scaled + 4 * j), factor, magic), odd = madd(load(scaled + 8 + 4 * j), factor, magic);
        pairs[j] = wasm_v128_or(wasm_v128_and(even, low_half), wasm_i32x4_shl(odd, 16));
      }
      store_pair(weights + 8 * i, pairs[0], pairs[1]);
    }
  }
}

/* Makes weights of the products of queries first .. first + count with a block. */
static void weigh_block(const struct tile *tile, int first, int count, const float *key_scales, int visible, int is_first) {
  scale_scores(tile, first, count, key_scales);
  find_largest(tile, first, count, visible, is_first);
  exponentiate(tile, first, count);
  find_factors(tile, count);
  round_weights(tile, count);
}
