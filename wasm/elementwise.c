/* rms_norm, combine: kernels over rows of f32. */
#include "norm.h"
#include "kernels.h"

int rms_norm(float *y, const float *x, const float *weight, int columns, int tokens, float epsilon) {
  if (columns <= 0 || columns % 4 != 0 || tokens < 0) return STATUS_SHAPE;
  for (int t = 0; t < tokens; t++, x += columns, y += columns) {
    const v128_t factor = wasm_f32x4_splat(inverse_rms(x, columns, epsilon));
    for (int i = 0; i < columns; i += 4) wasm_v128_store(y + i, wasm_f32x4_mul(wasm_f32x4_mul(load(x + i), factor), load(weight + i)));
  }
  return STATUS_OK;
}

int combine(float *x, const float *a, const float *b, int count) {
  if (count < 0) return STATUS_SHAPE;
  for (int i = 0; i < count; i++) x[i] += b ? a[i] + b[i] : a[i];
  return STATUS_OK;
}
