/*
 * The native twin of the WASM kernels: the same matrix products in C with AVX2 intrinsics, as fast as we know how to write them, so that the speed of
 * WASM can be told as a share of it. Not part of the product. bench/native/run.ts builds it with
 *
 *     gcc -O3 -march=native -std=gnu17 twin*.c -o twin
 *
 * Like the WASM kernels it interleaves 8 rows to a panel, so that one vector of 32 bytes holds the same columns of 8 rows, and broadcasts the
 * activation. Panels and activations are its own: it stays a fixed mark while the product's kernels change. File blocks: wasm/blocks.h.
 * 256-bit vectors are what WASM can reach through V8; AVX-512, which it cannot, is left out on purpose. So is VNNI, which it can where the CPU has
 * AVX-VNNI: the twin is the mark of a CPU without.
 */
#pragma once
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

enum { PANEL_ROWS = 8, TILE_TOKENS = 6 };

/* Activations: x = scale * value. */
struct record_32 {
  int8_t values[32];
  float scale;
  int32_t sum; /* of the values */
};

/* Order of values: per 64 columns a0..a31 b0..b31 it is a0 a1 b0 b1 a2 a3 b2 b3 ...; sums of 16 values: a early, b early, a late, b late. */
struct record_256 {
  int8_t values[256];
  int16_t sums[16];
  float scale;
};

enum activation { ACTIVATION_F32, ACTIVATION_32, ACTIVATION_256 };

/*
 * repack  the panel of 8 file rows
 * dot     out: f32[tokens, 8] = the panel's rows times records x[t]; scratch holds an unpacked panel, 32 bytes per column
 */
struct format {
  const char *name;
  int elements, bytes, panel_bytes;
  enum activation activation;
  void (*repack)(uint8_t *panel, const uint8_t *rows, int columns);
  void (*dot)(float *out, const uint8_t *panel, const uint8_t *const *x, int columns, int tokens, uint8_t *scratch);
};

#define FORMATS(X)                                                                                            \
  X(F32) X(F16) X(BF16) X(Q4_0) X(Q4_1) X(Q5_0) X(Q5_1) X(Q8_0) X(IQ4_NL) X(MXFP4) X(Q2_K) X(Q3_K) X(Q4_K)     \
  X(Q5_K) X(Q6_K) X(IQ4_XS)
#define DECLARE(name) extern const struct format FORMAT_##name;
FORMATS(DECLARE)

INLINE __m256i load(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }
INLINE void store(void *p, __m256i v) { _mm256_storeu_si256((__m256i *)p, v); }
INLINE __m256i splat_32(const void *p) { return _mm256_set1_epi32(*(const int32_t *)p); }
INLINE __m256 load_bf16x8(const uint8_t *p) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16));
}
INLINE __m256 load_f16x8(const uint8_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }
/* Four bits per byte, from the low or the high half. */
INLINE __m256i nibbles(const uint8_t *p, int high) {
  const __m256i v = load(p);
  return _mm256_and_si256(high ? _mm256_srli_epi16(v, 4) : v, _mm256_set1_epi8(15));
}
/* Bits from `bit` on of every byte, moved to bit `to`. */
INLINE __m256i move_bits(__m256i bits, int bit, int to, int mask) {
  return _mm256_and_si256(bit < to ? _mm256_slli_epi16(bits, to - bit) : _mm256_srli_epi16(bits, bit - to), _mm256_set1_epi8((char)mask));
}
/* i16 pairs of weight times x. Unsigned: quants up to 7 bits wide and x signed; signed: |w| times x with the sign of w. */
INLINE __m256i products(__m256i w, __m256i x, const int is_signed) {
  return is_signed ? _mm256_maddubs_epi16(_mm256_sign_epi8(w, w), _mm256_sign_epi8(x, w)) : _mm256_maddubs_epi16(w, x);
}
/* table[index] of 16 bytes. */
INLINE __m256i lookup(__m128i table, __m256i index) { return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), index); }

/* CALL(T, argument) for literal numbers of tokens T until `tokens` are done, each from token `t` on. */
#define RUN_TILES(tokens, CALL, argument)                           \
  do {                                                              \
    int t = 0;                                                      \
    for (; t + 6 <= (tokens); t += 6) CALL(6, argument);            \
    for (; t + 4 <= (tokens); t += 4) CALL(4, argument);            \
    for (; t + 2 <= (tokens); t += 2) CALL(2, argument);            \
    for (; t < (tokens); t++) CALL(1, argument);                    \
  } while (0)

/* From this many tokens on, a panel is unpacked once. */
enum { UNPACK_FROM_TOKENS = 4 };
