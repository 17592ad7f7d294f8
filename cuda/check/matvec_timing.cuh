/* Times products at GLM-4.5-Air's shapes: captured graphs of calls that go from copy to copy of the weights, so that no cache holds them. */
#pragma once
#include "matvec_fixture.cuh"

enum { CALLS = 48, REPLAYS = 3 };
enum : uint64_t { POOL_BYTES = 3ull << 30, ROTATE_BYTES = 512ull << 20 };

static __global__ void fill_kernel(uint32_t *words, uint64_t count) {
  for (uint64_t i = blockIdx.x * (uint64_t)blockDim.x + threadIdx.x; i < count; i += (uint64_t)gridDim.x * blockDim.x) {
    words[i] = (uint32_t)((i + 1) * 0x9e3779b97f4a7c15ull >> 29) & 0xbbffbbff; /* no f16 among them is infinite or NaN */
  }
}

/* Milliseconds of one call(i), i < CALLS. */
template <typename Call> double time_calls(tcu_engine &e, Call call) {
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  cudaEvent_t begin, end;
  REQUIRE(cudaStreamBeginCapture(e.stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < CALLS; i++) call(i);
  REQUIRE(cudaStreamEndCapture(e.stream, &graph));
  REQUIRE(cudaGraphInstantiate(&exec, graph, 0));
  REQUIRE(cudaEventCreate(&begin));
  REQUIRE(cudaEventCreate(&end));
  for (int i = 0; i < 2; i++) REQUIRE(cudaGraphLaunch(exec, e.stream));
  REQUIRE(cudaEventRecord(begin, e.stream));
  for (int i = 0; i < REPLAYS; i++) REQUIRE(cudaGraphLaunch(exec, e.stream));
  REQUIRE(cudaEventRecord(end, e.stream));
  REQUIRE(cudaEventSynchronize(end));
  float ms;
  REQUIRE(cudaEventElapsedTime(&ms, begin, end));
  cudaGraphExecDestroy(exec), cudaGraphDestroy(graph), cudaEventDestroy(begin), cudaEventDestroy(end);
  return (double)ms / (CALLS * REPLAYS);
}

/* Weights for timing, and the speed of a copy on this device in bytes per ms, read and written bytes both counted. */
struct timing {
  tcu_engine &e;
  uint8_t *pool;
  float *y;
  double copy_speed;
};

static void report(const timing &at, const char *what, double bytes, double ms) {
  printf("%-58s %8.2f us %7.0f GB/s %5.1f %% of copy\n", what, ms * 1e3, bytes / ms / 1e6, 100 * bytes / ms / at.copy_speed);
  fflush(stdout);
}

static tcu_matrix pool_matrix(const timing &at, int format, int rows, int columns, int call, uint64_t offset) {
  const uint64_t bytes = ((uint64_t)rows * row_bytes(format, columns) + 255) & ~255ull, copies = ROTATE_BYTES / bytes + 1;
  return {(uint64_t)at.pool + offset + (uint64_t)call % copies * bytes, 0, format, rows, columns, 1};
}

static void time_matvec(const timing &at, int format, int rows, int columns, int tokens) {
  const double ms = time_calls(at.e, [&](int i) {
    REQUIRE_OK(matvec(at.e, pool_matrix(at, format, rows, columns, i, 0), at.e.b.normed, at.y, rows, MATMUL_STORE, nullptr, tokens));
  });
  char text[100];
  snprintf(text, sizeof text, "%-6s [%d x %d], %d tokens", format_name(format), rows, columns, tokens);
  report(at, text, (double)rows * (double)row_bytes(format, columns), ms);
}

static void time_gated(const timing &at, int format, int rows, int columns, int tokens) {
  const double ms = time_calls(at.e, [&](int i) {
    const tcu_matrix gate = pool_matrix(at, format, rows, columns, i, 0), up = pool_matrix(at, format, rows, columns, i, 1ull << 30);
    tcu_ffn ffn = {gate, up, {}};
    ffn.down.format = FORMAT_Q8_0;
    REQUIRE_OK(matvec_gated(at.e, ffn, at.e.b.normed, tokens));
  });
  char text[100];
  snprintf(text, sizeof text, "%-6s gated 2 x [%d x %d] + quantise, %d tokens", format_name(format), rows, columns, tokens);
  report(at, text, 2.0 * rows * (double)row_bytes(format, columns), ms);
}

/* 8 of 128 experts for each token; every call has other ones. */
static void time_experts(const timing &at, int format, int hidden, int width, int tokens) {
  enum { EXPERTS = 128, USED = 8, SETS = EXPERTS / USED };
  const uint64_t in = (uint64_t)width * row_bytes(format, hidden), out = (uint64_t)hidden * row_bytes(format, width);
  if (EXPERTS * (2 * in + out) > POOL_BYTES) return;
  const uint64_t base = (uint64_t)at.pool;
  const tcu_ffn ffn = {{base, in, format, width, hidden, EXPERTS},
                       {base + EXPERTS * in, in, format, width, hidden, EXPERTS},
                       {base + 2 * EXPERTS * in, out, format, hidden, width, EXPERTS}};
  std::vector<int32_t> ids;
  for (int set = 0; set < SETS; set++) {
    for (int t = 0; t < tokens; t++) {
      for (int i = 0; i < USED; i++) ids.push_back((i * SETS + set + 5 * t) % SETS + i * SETS);
    }
  }
  const std::vector<float> by((size_t)(tokens * USED), 0.125f);
  int32_t *device_ids = device_copy(ids);
  at.e.b.expert_weights = device_copy(by);
  at.e.shape.experts_used = USED;
  const double ms = time_calls(at.e, [&](int i) {
    at.e.b.expert_ids = device_ids + i % SETS * tokens * USED;
    REQUIRE_OK(matvec_experts(at.e, ffn, tokens));
  });
  char text[100];
  snprintf(text, sizeof text, "%-6s experts, 8 of %d, width %d, %d tokens", format_name(format), (int)EXPERTS, width, tokens);
  report(at, text, (double)(tokens * USED) * (double)(2 * in + out), ms);
  cudaFree(device_ids), cudaFree(at.e.b.expert_weights);
}

static void time_shapes(tcu_engine &e) {
  timing at = {e, device_memory<uint8_t>(POOL_BYTES), device_memory<float>((size_t)DECODE_TOKENS * 151552), 0};
  fill_kernel<<<2048, 256, 0, e.stream>>>((uint32_t *)at.pool, POOL_BYTES / 4);
  const uint64_t half = POOL_BYTES / 2;
  const double copy_ms =
      time_calls(e, [&](int) { REQUIRE(cudaMemcpyAsync(at.pool + half, at.pool, half, cudaMemcpyDeviceToDevice, e.stream)); });
  at.copy_speed = 2 * (double)half / copy_ms;
  printf("copy: %.0f GB/s\n", at.copy_speed / 1e6);
  for (int tokens : {1, 2, 4, 8}) {
    time_matvec(at, FORMAT_Q8_0, 12288, 4096, tokens);
    time_matvec(at, FORMAT_Q8_0, 4096, 12288, tokens);
    time_matvec(at, FORMAT_Q8_0, 151552, 4096, tokens);
    time_matvec(at, FORMAT_Q8_0, 1024, 4096, tokens);
    time_matvec(at, FORMAT_Q8_0, 4096, 1408, tokens);
    time_gated(at, FORMAT_Q8_0, 1408, 4096, tokens);
    time_gated(at, FORMAT_Q8_0, 10944, 4096, tokens);
    time_matvec(at, FORMAT_Q8_0, 4096, 10944, tokens);
    time_matvec(at, FORMAT_F32, 128, 4096, tokens);
    time_experts(at, FORMAT_Q4_0, 4096, 1408, tokens);
  }
  for (int tokens : {1, 8}) {
#define TIME_FORMAT(name, ...) time_matvec(at, FORMAT_##name, 12288, 4096, tokens);
    WEIGHT_FORMATS(TIME_FORMAT)
  }
  REQUIRE_OK(norm_and_quantize(e, e.b.normed, FORM_Q8X32, at.y, at.y, nullptr, 4096, 1));
  const double norm_ms = time_calls(e, [&](int) {
    REQUIRE_OK(norm_and_quantize(e, e.b.normed, FORM_ROWS | FORM_Q8X32 | FORM_Q8X256, at.y, at.y, nullptr, 4096, 1));
  });
  printf("norm and all forms of one token of 4096: %.2f us\n", norm_ms * 1e3);
}
