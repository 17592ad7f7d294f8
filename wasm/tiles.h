/*
 * How `tokens` records are cut into register tiles: sixes or eights, by family, then what is left as 4, 2 and 1. The cut cannot change any result: each token is computed
 * by itself. Every size is a function of its own, unrolled for its number of tokens and with one loop: V8 finds 256-bit pairs per function, and
 * gives up on one that has several such loops.
 */
#pragma once
#include "simd.h"

/* Tokens by panels in one tile: at most 8 by 1, or 1 by STREAMS. */
enum { TILE_SIZE = 8 };

/*
 * Up to this many tokens meet STREAMS panels side by side, one token after the other. Such products are limited by memory, and a core has
 * more reads under way when it walks several places of a matrix at once (docs/formats.md).
 */
enum { STREAM_TOKENS = 3, STREAMS = 4 };

INLINE void store_tile(float *out, v128_t (*total)[2], const int size) {
  UNROLL for (int i = 0; i < size; i++) store_pair(out + 8 * i, total[i][0], total[i][1]);
}

/*
 * Tokens of a chunk at most. Products of a pair of panels leave the second one's results behind those of the first, this many floats further on.
 */
enum { CHUNK_TOKENS = 144, PAIR = 2, PAIR_STRIDE = CHUNK_TOKENS * 8 };

/* From this many tokens on, a panel is unpacked once into scratch instead of in every product. */
enum { UNPACK_FROM_TOKENS = STREAM_TOKENS + 1 };

/* Defines name(out: f32[STREAMS, 8], panels, x, blocks), one token. */
#define STREAMS_KERNEL(name, ...)                                                                                                     \
  static __attribute__((noinline)) void name(float *out, const uint8_t *const *panels, const uint8_t *const *x, int blocks) {         \
    __VA_ARGS__;                                                                                                                      \
  }

/* Defines name_1, name_2, name_4 and name_<most>, which run the given call with TILE, its number of tokens. `unpacked` may be 0. */
#define TILE_KERNELS(name, most, ...) TILE_KERNELS_(name, most, __VA_ARGS__)
#define TILE_KERNELS_(name, most, ...) TILE_KERNELS_##most(name, __VA_ARGS__)
#define TILE_KERNELS_4(name, ...) TILE_KERNEL(name, 1, __VA_ARGS__) TILE_KERNEL(name, 2, __VA_ARGS__) TILE_KERNEL(name, 4, __VA_ARGS__)
#define TILE_KERNELS_6(name, ...) TILE_KERNELS_4(name, __VA_ARGS__) TILE_KERNEL(name, 6, __VA_ARGS__)
#define TILE_KERNELS_8(name, ...) TILE_KERNELS_4(name, __VA_ARGS__) TILE_KERNEL(name, 8, __VA_ARGS__)
#define TILE_KERNEL(name, size, ...)                                                                                                  \
  static __attribute__((noinline)) void name##_##size(float *out, const uint8_t *panel, const uint8_t *unpacked, const uint8_t *const *x, int blocks) { \
    enum { TILE = size };                                                                                                             \
    (void)panel;                                                                                                                      \
    (void)unpacked;                                                                                                                   \
    __VA_ARGS__;                                                                                                                      \
  }

/* out: f32[tokens, 8] through the functions of TILE_KERNELS. */
#define RUN_TILES(name, most, out, panel, unpacked, x, blocks, tokens)                              \
  do {                                                                                              \
    int t = 0;                                                                                      \
    for (; t + most <= (tokens); t += most)                                                         \
      name##_##most((out) + 8 * t, panel, unpacked, (x) + t, blocks);                               \
    for (; t + 4 <= (tokens); t += 4) name##_4((out) + 8 * t, panel, unpacked, (x) + t, blocks);    \
    for (; t + 2 <= (tokens); t += 2) name##_2((out) + 8 * t, panel, unpacked, (x) + t, blocks);    \
    for (; t < (tokens); t++) name##_1((out) + 8 * t, panel, unpacked, (x) + t, blocks);            \
  } while (0)

/* Tokens of the first tile of `tokens`: as RUN_TILES cuts them. */
INLINE int tile_of(int tokens, const int most) { return tokens >= most ? most : tokens >= 4 ? 4 : tokens >= 2 ? 2 : 1; }

/*
 * The order in which the 32 (or 64) columns of a block are visited, so that the two nibbles of a byte are used close together:
 * steps 0 1 h h+1 2 3 h+2 h+3 ..., where h is half of the steps.
 */
#define VISIT(n, steps) (((n) >> 2) * 2 + ((n) & 1) + ((n) & 2 ? (steps) / 2 : 0))
