/* keep_best: the largest of many logits, found where they have just been worked out. */
#include "kernels.h"
#include "simd.h"

enum { EXPONENT_ONE = 1 << 23 };

/* Lanes below zero where the exponent is all ones: infinities and NaNs. */
INLINE v128_t not_finite(v128_t x) {
  return wasm_i32x4_add(wasm_v128_and(x, wasm_i32x4_splat(0x7fffffff)), wasm_i32x4_splat(EXPONENT_ONE));
}

INLINE int is_finite(float x) { return x - x == 0; }

/* The first of begin <= i < end that is not finite, or else the first of the largest; begin < end. */
static int best_of(const float *x, int begin, int end) {
  v128_t top = wasm_f32x4_splat(-__builtin_inff()), carries = wasm_i32x4_splat(0);
  int vectors = begin;
  for (; vectors + 4 <= end; vectors += 4) {
    const v128_t v = load(x + vectors);
    top = wasm_f32x4_pmax(top, v);
    carries = wasm_v128_or(carries, not_finite(v));
  }
  float largest = max_lanes(top);
  int all_finite = wasm_i32x4_bitmask(carries) == 0;
  for (int i = vectors; i < end; i++) {
    all_finite &= is_finite(x[i]);
    if (x[i] > largest) largest = x[i];
  }
  int i = begin;
  if (!all_finite) {
    while (is_finite(x[i])) i++;
    return i;
  }
  const v128_t wanted = wasm_f32x4_splat(largest);
  while (i < vectors && !wasm_v128_any_true(wasm_f32x4_eq(load(x + i), wanted))) i += 4;
  while (x[i] != largest) i++;
  return i;
}

int keep_best(int32_t *ids, float *best, const float *logits, int stride, int begin, int end, int rows) {
  if (begin < 0 || begin > end || end > stride || rows < 0) return STATUS_SHAPE;
  if (begin == end) return STATUS_OK;
  for (int r = 0; r < rows; r++, logits += stride) {
    const int found = best_of(logits, begin, end);
    const int is_better = is_finite(best[r]) && (!is_finite(logits[found]) || logits[found] > best[r]);
    if (ids[r] >= 0 && !is_better) continue;
    ids[r] = found;
    best[r] = logits[found];
  }
  return STATUS_OK;
}
