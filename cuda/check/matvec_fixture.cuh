/* What matvec_check.cu and matvec_timing.cuh share: device memory, a hand-made engine, and the CPU's side of a comparison. */
#pragma once
#include <stdio.h>
#include <stdlib.h>
#include "../engine.cuh"
#include "reference.h"

#define REQUIRE(call)                                                   \
  do {                                                                  \
    const cudaError_t required = (call);                                \
    if (required == cudaSuccess) break;                                 \
    printf("%s: %s\n", #call, cudaGetErrorString(required));            \
    exit(1);                                                            \
  } while (0)
#define REQUIRE_OK(call)                                                \
  do {                                                                  \
    const int required = (call);                                        \
    if (required == TCU_OK) break;                                      \
    char required_text[512];                                            \
    tcu_error_text(required_text, sizeof required_text);                \
    printf("%s: status %d, %s\n", #call, required, required_text);      \
    exit(1);                                                            \
  } while (0)

template <typename T> T *device_memory(size_t count) {
  T *p;
  REQUIRE(cudaMalloc((void **)&p, count * sizeof(T)));
  return p;
}
template <typename T> T *device_copy(const std::vector<T> &of) {
  T *p = device_memory<T>(of.size());
  REQUIRE(cudaMemcpy(p, of.data(), of.size() * sizeof(T), cudaMemcpyHostToDevice));
  return p;
}
template <typename T> std::vector<T> host_copy(const T *of, size_t count) {
  std::vector<T> to(count);
  REQUIRE(cudaDeviceSynchronize());
  REQUIRE(cudaMemcpy(to.data(), of, count * sizeof(T), cudaMemcpyDeviceToHost));
  return to;
}

/* With room for two digits. */
inline activations new_activations(size_t elements) {
  activations y;
  y.rows = device_memory<float>(elements);
  for (quantized *q : {&y.q8x32, &y.q8x256}) {
    q->values = device_memory<int8_t>(2 * elements);
    q->scales = device_memory<float>(2 * elements / GROUP);
    q->sums = device_memory<float>(2 * elements / GROUP);
  }
  y.digits = 1;
  return y;
}

/* Every byte 0xff: NaN as f32. */
inline void poison(void *p, size_t bytes) { REQUIRE(cudaMemset(p, 0xff, bytes)); }
inline void poison(const activations &y, size_t elements) {
  poison(y.rows, elements * 4);
  for (const quantized *q : {&y.q8x32, &y.q8x256}) {
    poison(q->values, 2 * elements);
    poison(q->scales, 2 * elements / GROUP * 4);
    poison(q->sums, 2 * elements / GROUP * 4);
  }
}

inline const char *format_name(int format) {
  switch (format) {
#define FORMAT_NAME(name, ...) case FORMAT_##name: return #name;
    WEIGHT_FORMATS(FORMAT_NAME)
#undef FORMAT_NAME
    default: return "?";
  }
}

inline size_t row_bytes(int format, int columns) {
  return with_format(format, [&](auto w) { return (size_t)columns / decltype(w)::ELEMENTS * decltype(w)::BYTES; }, [] { return (size_t)0; });
}
inline int elements_of(int format) {
  return with_format(format, [](auto w) { return (int)decltype(w)::ELEMENTS; }, [] { return 0; });
}
inline int block_bytes_of(int format) {
  return with_format(format, [](auto w) { return (int)decltype(w)::BYTES; }, [] { return 0; });
}

/* A matrix of random weights on the device, and what the CPU sees of it; one below the other for experts. */
struct random_matrix {
  tcu_matrix matrix;
  std::vector<double> weights; /* f64[experts, rows, columns] */

  random_matrix(int format, int rows, int columns, int experts, random_source &random) {
    const size_t bytes = (size_t)rows * row_bytes(format, columns), elements = (size_t)elements_of(format);
    std::vector<uint8_t> blocks((size_t)experts * bytes + 15 & ~(size_t)15);
    random_weights(format, blocks.data(), (size_t)experts * bytes, block_bytes_of(format), random);
    matrix = {(uint64_t)device_copy(blocks), bytes, format, rows, columns, experts};
    weights.resize((size_t)experts * (size_t)rows * (size_t)columns);
    with_format(
        format,
        [&](auto w) {
          typedef decltype(w) W;
          for (size_t i = 0; i < weights.size(); i++) weights[i] = weight_reference<W::ID>(&blocks[i / elements * W::BYTES], (int)(i % elements));
          return 0;
        },
        [] { return 0; });
  }
  ~random_matrix() { cudaFree((void *)matrix.address); }
  random_matrix(const random_matrix &) = delete;
};

/* The activations of a form as f64[elements], which are whole rows of `columns`. */
inline std::vector<double> activation_values(const activations &x, int format, size_t elements, int columns) {
  std::vector<double> to(elements);
  if (activation_of(format) == ACTIVATION_F32) {
    const std::vector<float> rows = host_copy(x.rows, elements);
    for (size_t i = 0; i < elements; i++) to[i] = (double)rows[i];
    return to;
  }
  const quantized &q = activation_of(format) == ACTIVATION_Q8X32 ? x.q8x32 : x.q8x256;
  const size_t all = elements * (size_t)x.digits, row = (size_t)columns;
  const std::vector<int8_t> values = host_copy(q.values, all);
  const std::vector<float> scales = host_copy(q.scales, all / GROUP);
  for (size_t i = 0; i < all; i++) to[i / row / (size_t)x.digits * row + i % row] += (double)scales[i / GROUP] * values[i];
  return to;
}

/* From now on activations have so many digits. */
inline void set_digits(tcu_engine &e, int digits) { e.shape.digits = e.b.normed.digits = e.b.hidden.digits = digits; }

inline double dot(const double *a, const double *b, int count) {
  double sum = 0;
  for (int i = 0; i < count; i++) sum += a[i] * b[i];
  return sum;
}

/* An engine with what the functions under test read of it, for `tokens` tokens and rows of up to `columns`. */
inline void make_engine(tcu_engine &e, int columns, int pairs) {
  int device;
  REQUIRE(cudaGetDevice(&device));
  REQUIRE(cudaDeviceGetAttribute(&e.multiprocessors, cudaDevAttrMultiProcessorCount, device));
  REQUIRE(cudaStreamCreate(&e.stream));
  REQUIRE(cudaDeviceGetAttribute(&e.shared_bytes, cudaDevAttrMaxSharedMemoryPerMultiprocessor, device));
  int major;
  REQUIRE(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  e.starts_early = major >= 9; /* when the program was compiled for the device: see its header */
  e.shape.epsilon = 1e-5f;
  e.shape.digits = 1;
  e.b.normed = new_activations((size_t)DECODE_TOKENS * (size_t)columns);
  e.b.hidden = new_activations((size_t)pairs * (size_t)columns);
  e.b.gated = device_memory<float>((size_t)pairs * 2 * (size_t)columns);
  e.b.routed = device_memory<float>((size_t)DECODE_TOKENS * (size_t)columns);
}
