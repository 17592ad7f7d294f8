/*
 * What tiles_check.cu compares with: random matrices and activations on the host and on the device, and products in float64, one element at a time.
 */
#pragma once
#include <stdio.h>
#include <stdlib.h>
#include "../tiles.cuh"
#include "reference.h"

#define REQUIRE(call)                                                                                \
  do {                                                                                               \
    const int require_status = (int)(call);                                                          \
    if (require_status != 0) {                                                                       \
      char text[512] = "";                                                                           \
      tcu_error_text(text, sizeof text);                                                             \
      printf("FAILED %s:%d: %s is %d: %s\n", __FILE__, __LINE__, #call, require_status, text);       \
      exit(1);                                                                                       \
    }                                                                                                \
  } while (0)

/* An array on the device, freed with its owner. */
template <typename T> struct on_device {
  T *data = nullptr;
  size_t count = 0;
  on_device() {}
  explicit on_device(size_t n) : count(n) { REQUIRE(cudaMalloc((void **)&data, (n ? n : 1) * sizeof(T))); }
  explicit on_device(const std::vector<T> &from) : on_device(from.size()) { put(from); }
  on_device(const on_device &) = delete;
  on_device &operator=(const on_device &) = delete;
  ~on_device() { cudaFree(data); }
  void put(const std::vector<T> &from) { REQUIRE(cudaMemcpy(data, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice)); }
  std::vector<T> get() const {
    std::vector<T> to(count);
    REQUIRE(cudaMemcpy(to.data(), data, count * sizeof(T), cudaMemcpyDeviceToHost));
    return to;
  }
};

/* A format's numbers by id. */
struct format_numbers {
  const char *name;
  int id, elements, bytes, activation;
  double (*weight)(const uint8_t *block, int k);
};
#define FORMAT_NUMBERS(name, id, elements, bytes, activation) {#name, id, elements, bytes, activation, weight_reference<FORMAT_##name>},
static const format_numbers FORMATS_CHECKED[] = {WEIGHT_FORMATS(FORMAT_NUMBERS)};

inline const format_numbers &numbers_of(int id) {
  for (const format_numbers &f : FORMATS_CHECKED) {
    if (f.id == id) return f;
  }
  printf("FAILED: no format %d\n", id);
  exit(1);
}

/* Random W[experts, rows, columns]. The device's copy begins 32 bytes behind its allocation, as a tensor in the middle of a file may. */
struct matrix_under_check {
  enum { LEAD = 32 };
  const format_numbers &format;
  int rows, columns, experts;
  size_t row_bytes, expert_bytes;
  std::vector<uint8_t> bytes;
  on_device<uint8_t> device;
  /* `distinct` experts are random, the others repeat them. */
  matrix_under_check(int id, int rows, int columns, int experts, int distinct, random_source &random)
      : format(numbers_of(id)), rows(rows), columns(columns), experts(experts), row_bytes((size_t)(columns / format.elements) * (size_t)format.bytes),
        expert_bytes(row_bytes * (size_t)rows), bytes(expert_bytes * (size_t)distinct), device(LEAD + expert_bytes * (size_t)experts) {
    random_weights(id, bytes.data(), bytes.size(), format.bytes, random);
    for (int e = 0; e < experts; e++) {
      const uint8_t *from = bytes.data() + (size_t)(e % distinct) * expert_bytes;
      REQUIRE(cudaMemcpy(device.data + LEAD + (size_t)e * expert_bytes, from, expert_bytes, cudaMemcpyHostToDevice));
    }
  }
  tcu_matrix matrix() const {
    return {(uint64_t)(device.data + LEAD), experts > 1 ? expert_bytes : 0, format.id, rows, columns, experts};
  }
  double weight(int expert, int row, int column) const {
    const uint8_t *from = bytes.data() + ((size_t)expert * expert_bytes) % bytes.size() + (size_t)row * row_bytes;
    return format.weight(from + (size_t)(column / format.elements) * (size_t)format.bytes, column % format.elements);
  }
};

/* Random activations x[tokens, columns] in all forms, which are different numbers; the second digit of quantised ones is 254 times as small. */
struct rows_under_check {
  int tokens, columns, digits;
  std::vector<float> rows, scales[2], sums[2]; /* [0]: q8x32, [1]: q8x256 */
  std::vector<int8_t> values[2];
  on_device<float> device_rows, device_scales[2], device_sums[2];
  on_device<int8_t> device_values[2];
  rows_under_check(int tokens, int columns, int digits)
      : tokens(tokens), columns(columns), digits(digits), device_rows(size()),
        device_scales{on_device<float>(all() / GROUP), on_device<float>(all() / GROUP)},
        device_sums{on_device<float>(all() / GROUP), on_device<float>(all() / GROUP)},
        device_values{on_device<int8_t>(all()), on_device<int8_t>(all())} {}
  rows_under_check(int tokens, int columns, int digits, random_source &random) : rows_under_check(tokens, columns, digits) {
    rows.resize(size());
    for (float &x : rows) x = random.normal();
    for (int form = 0; form < 2; form++) {
      values[form].resize(all()), scales[form].resize(all() / GROUP), sums[form].resize(all() / GROUP);
      for (int8_t &value : values[form]) value = (int8_t)((int)(random.bits() % 255) - 127);
      for (size_t g = 0; g < scales[form].size(); g++) {
        /* q8x32: one scale for two groups; q8x256: one of eight multiples for each */
        const bool second = g * GROUP / (size_t)columns % (size_t)digits == 1;
        const float scale = (0.5f + random.uniform()) / 127 / (second ? 254.0f : 1.0f);
        scales[form][g] = form == 0 ? (g % 2 ? scales[form][g - 1] : scale) : scale / 8 * (float)(1 + random.bits() % 8);
        int sum = 0;
        for (int i = 0; i < GROUP; i++) sum += values[form][g * GROUP + (size_t)i];
        sums[form][g] = scales[form][g] * (float)sum;
      }
      device_values[form].put(values[form]), device_scales[form].put(scales[form]), device_sums[form].put(sums[form]);
    }
    device_rows.put(rows);
  }
  size_t size() const { return (size_t)tokens * (size_t)columns; }
  size_t all() const { return size() * (size_t)digits; }
  activations device() const {
    return {device_rows.data,
            {device_values[0].data, device_scales[0].data, device_sums[0].data},
            {device_values[1].data, device_scales[1].data, device_sums[1].data},
            digits};
  }
  /* Takes over what the device has of the form that weights of this activation want. */
  void read_back(int activation) {
    if (activation == ACTIVATION_F32) {
      rows = device_rows.get();
    } else {
      const int form = activation - 1;
      values[form] = device_values[form].get(), scales[form] = device_scales[form].get(), sums[form] = device_sums[form].get();
    }
  }
  double value(int activation, size_t t, int column) const {
    if (activation == ACTIVATION_F32) return (double)rows[t * (size_t)columns + (size_t)column];
    double sum = 0;
    for (size_t vector = t * (size_t)digits; vector < (t + 1) * (size_t)digits; vector++) {
      const size_t at = vector * (size_t)columns + (size_t)column;
      sum += (double)scales[activation - 1][at / GROUP] * values[activation - 1][at];
    }
    return sum;
  }
};

/* Row `row` of an expert's matrix times row t of x. */
inline double product(const matrix_under_check &w, int expert, int row, const rows_under_check &x, size_t t) {
  double sum = 0;
  for (int c = 0; c < w.columns; c++) sum += w.weight(expert, row, c) * x.value(w.format.activation, t, c);
  return sum;
}

/* Normalised mean squared error of the pairs it was told. */
struct error_measure {
  double errors = 0, squares = 0;
  void add(double got, double want) { errors += (got - want) * (got - want), squares += want * want; }
  double nmse() const { return errors / (squares > 0 ? squares : 1); }
};

/* Prints a failure and counts it. */
static int failures = 0;
template <typename... Arguments> void fail(const char *format, Arguments... arguments) {
  printf("FAILED ");
  printf(format, arguments...);
  printf("\n");
  failures++;
}

inline double bound_of(int activation) { return activation == ACTIVATION_F32 ? 1e-9 : 1e-10; }
