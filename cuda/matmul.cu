/* Products with weights: few tokens go to matvec, many to tiles; and what can be multiplied at all. */
#include "engine.cuh"

int activation_of(int format) {
  return with_format(format, [](auto row) { return (int)decltype(row)::ACTIVATION; }, [] { return -1; });
}

int check_matrix(const tcu_matrix &matrix, const char *what) {
  const int activation = activation_of(matrix.format);
  if (activation < 0) return failed(TCU_FORMAT, "%s: no kernel for format %d", what, matrix.format);
  const int elements = with_format(matrix.format, [](auto row) { return (int)decltype(row)::ELEMENTS; }, [] { return 1; });
  /* Float weights are read 16 bytes at a time, quantised ones in whole blocks. */
  const int multiple = elements == 1 ? 8 : elements;
  if (matrix.rows <= 0 || matrix.columns <= 0 || matrix.columns % multiple != 0) {
    return failed(TCU_SHAPE, "%s: %d x %d of format %d: columns must be a multiple of %d", what, matrix.rows, matrix.columns, matrix.format, multiple);
  }
  if (matrix.address % 16 != 0 || (elements == 1 && matrix.expert_bytes % 16 != 0)) {
    return failed(TCU_ARGUMENT, "%s: weights must lie on a multiple of 16 bytes", what);
  }
  return TCU_OK;
}

int matmul(tcu_engine &e, const tcu_matrix &w, const activations &x, float *y, int y_stride, int flags, const float *bias, int tokens) {
  if (suits_matvec(e, tokens)) return matvec(e, w, x, y, y_stride, flags, bias, tokens);
  return matmul_tiles(e, w, x, y, y_stride, flags, bias, tokens);
}

int matmul_stacked(tcu_engine &e, const stacked_matrix *stack, int count, const activations &x, float *y, int y_stride, int tokens) {
  if (suits_matvec(e, tokens)) return matvec_stacked(e, stack, count, x, y, y_stride, tokens);
  for (int i = 0; i < count; i++) {
    CHECK(matmul_tiles(e, stack[i].w, x, y, y_stride, MATMUL_STORE, stack[i].bias, tokens));
    y += stack[i].w.rows;
  }
  return TCU_OK;
}

int gated(tcu_engine &e, const tcu_ffn &ffn, const activations &x, int tokens) {
  if (suits_matvec(e, tokens)) return matvec_gated(e, ffn, x, tokens);
  const int columns = ffn.gate.rows;
  CHECK(matmul_tiles(e, ffn.gate, x, e.b.gated, 2 * columns, MATMUL_STORE, nullptr, tokens));
  CHECK(matmul_tiles(e, ffn.up, x, e.b.gated + columns, 2 * columns, MATMUL_STORE, nullptr, tokens));
  return silu_and_quantize(e, e.b.hidden, form_of(ffn.down.format), e.b.gated, columns, tokens);
}
