/* Products with weights. A row is decoded once for all tokens of a call. */
#include <string.h>
#include "engine.h"

int form_of(int format) {
  const int activation = with_format(format, [](auto w) { return (int)decltype(w)::ACTIVATION; }, [] { return -1; });
  return activation < 0 ? 0 : activation == ACTIVATION_Q8X32 ? FORM_Q8X32 : activation == ACTIVATION_Q8X256 ? FORM_Q8X256 : FORM_ROWS;
}

bool has_matrix(const tcu_matrix &w) { return w.address != 0; }

static uint64_t row_bytes(const tcu_matrix &w) {
  return with_format(
      w.format,
      [&](auto format) {
        typedef decltype(format) f;
        return w.columns > 0 && w.columns % f::ELEMENTS == 0 ? (uint64_t)(w.columns / f::ELEMENTS) * f::BYTES : 0;
      },
      [] { return (uint64_t)0; });
}

uint64_t matrix_bytes(const tcu_matrix &w) { return (uint64_t)w.rows * row_bytes(w); }

/* A row of quantised weights: scales[g] * values[16 g + k] - minimums[g]. */
struct unpacked {
  std::vector<int8_t> values;
  std::vector<float> scales, minimums;
};

template <typename F> static void unpack_row(unpacked &to, const uint8_t *row, int columns) {
  const int groups = columns / GROUP, per_block = F::ELEMENTS / GROUP;
  to.values.resize((size_t)columns);
  to.scales.resize((size_t)groups);
  to.minimums.resize((size_t)groups);
  for (int g = 0; g < groups; g++) {
    int32_t values[4];
    F::unpack(row + (size_t)(g / per_block) * F::BYTES, g % per_block, values, to.scales[(size_t)g], to.minimums[(size_t)g]);
    memcpy(to.values.data() + (size_t)g * GROUP, values, sizeof values);
  }
}

/* Partial sums side by side, so that the compiler can use vectors: the order does not depend on tokens. */
enum { LANES = 16 };

static float sum_of(const float (&lanes)[LANES]) {
  float sum = 0;
  for (const float lane : lanes) sum += lane;
  return sum;
}

static float dot(const float *a, const float *b, int columns) {
  float lanes[LANES] = {0};
  int i = 0;
  for (; i + LANES <= columns; i += LANES) {
    for (int lane = 0; lane < LANES; lane++) lanes[lane] += a[i + lane] * b[i + lane];
  }
  for (; i < columns; i++) lanes[0] += a[i] * b[i];
  return sum_of(lanes);
}

/* x: values, scales and sums of one row. */
static float dot(const unpacked &w, const int8_t *values, const float *scales, const float *sums, int columns) {
  float total = 0;
  for (int g = 0; g < columns / GROUP; g++) {
    const int8_t *a = w.values.data() + (size_t)g * GROUP, *b = values + (size_t)g * GROUP;
    int products = 0;
    for (int i = 0; i < GROUP; i++) products += a[i] * b[i];
    total += w.scales[(size_t)g] * scales[g] * (float)products - w.minimums[(size_t)g] * sums[g];
  }
  return total;
}

/* The rows of a product for one format: prepares a row of weights, then gives its product with any row of activations. */
template <typename F, int ACTIVATION> struct product {
  const activations &x;
  int columns;
  unpacked row = {};

  void take(const uint8_t *weights) { unpack_row<F>(row, weights, columns); }
  float with(int64_t t) const {
    const quantized &q = ACTIVATION == ACTIVATION_Q8X32 ? x.q8x32 : x.q8x256;
    const int64_t groups = columns / GROUP;
    float sum = 0;
    for (int64_t r = t * x.digits; r < (t + 1) * x.digits; r++) sum += dot(row, q.values + r * columns, q.scales + r * groups, q.sums + r * groups, columns);
    return sum;
  }
};

template <typename F> struct product<F, ACTIVATION_F32> {
  const activations &x;
  int columns;
  std::vector<float> row = {};

  void take(const uint8_t *weights) {
    row.resize((size_t)columns);
    for (int k = 0; k < columns; k++) row[(size_t)k] = F::value(weights, k);
  }
  float with(int64_t t) const { return dot(row.data(), x.rows + t * columns, columns); }
};

void matmul(float *y, int y_stride, int flags, const tcu_matrix &w, int expert, const activations &x, const int32_t *index, const float *bias, int tokens) {
  const uint8_t *matrix = (const uint8_t *)w.address + (uint64_t)expert * w.expert_bytes;
  const uint64_t stride = row_bytes(w);
  const auto multiply = [&](auto format) {
    typedef decltype(format) f;
    product<f, f::ACTIVATION> row{x, w.columns};
    for (int r = 0; r < w.rows; r++) {
      row.take(matrix + (uint64_t)r * stride);
      for (int t = 0; t < tokens; t++) {
        const float value = row.with(index ? index[t] : t) + (bias ? bias[r] : 0);
        float &to = y[(size_t)t * (size_t)y_stride + (size_t)r];
        to = flags == MATMUL_ADD ? to + value : value;
      }
    }
    return 0;
  };
  with_format(w.format, multiply, [] { return 0; });
}

void decode_row(float *y, const tcu_matrix &w, int64_t row) {
  const uint8_t *from = (const uint8_t *)w.address + (uint64_t)row * row_bytes(w);
  with_format(
      w.format,
      [&](auto format) {
        typedef decltype(format) f;
        if constexpr ((int)f::ACTIVATION == ACTIVATION_F32) {
          for (int k = 0; k < w.columns; k++) y[k] = f::value(from, k);
        } else {
          unpacked all;
          unpack_row<f>(all, from, w.columns);
          for (size_t k = 0; k < all.values.size(); k++) y[k] = all.scales[k / GROUP] * (float)all.values[k] - all.minimums[k / GROUP];
        }
        return 0;
      },
      [] { return 0; });
}
