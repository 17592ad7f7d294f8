/* The second half of attention_check.cu: times attention at GLM-4.5-Air's shape. */
#pragma once

enum { REPEATS = 16, LAUNCHES = 10 };

/* Microseconds of one call; calls go round several caches, so that nothing is left in the device's own cache. */
template <typename F> static double time_calls(bench &b, F call) {
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  CUDA(cudaStreamBeginCapture(b.e.stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < REPEATS; i++) NEED(call(i));
  CUDA(cudaStreamEndCapture(b.e.stream, &graph));
  CUDA(cudaGraphInstantiate(&exec, graph, 0));
  cudaEvent_t begin, end;
  for (cudaEvent_t *event : {&begin, &end}) CUDA(cudaEventCreate(event));
  CUDA(cudaGraphLaunch(exec, b.e.stream));
  CUDA(cudaEventRecord(begin, b.e.stream));
  for (int i = 0; i < LAUNCHES; i++) CUDA(cudaGraphLaunch(exec, b.e.stream));
  CUDA(cudaEventRecord(end, b.e.stream));
  CUDA(cudaEventSynchronize(end));
  float ms = 0;
  CUDA(cudaEventElapsedTime(&ms, begin, end));
  CUDA(cudaGraphExecDestroy(exec));
  CUDA(cudaGraphDestroy(graph));
  return ms * 1000.0 / (REPEATS * LAUNCHES);
}

static void time_case(const char *what, const std::vector<sequence> &sequences) {
  at_hand = what;
  bench b(GLM, sequences, 0);
  const size_t size = b.cache_size(), layers = std::max<size_t>(1, std::min<size_t>(REPEATS, ((size_t)256 << 20) / (size * 4)));
  on_device<__half> keys, values;
  keys.allocate(size * layers), values.allocate(size * layers);
  for (const auto *cache : {&keys, &values}) fill_kernel<<<1024, 256, 0, b.e.stream>>>(cache->at, cache->count);
  CUDA(cudaPeekAtLastError());
  const auto choose = [&](int i) {
    b.layer.weights.key_cache = (uint64_t)(keys.at + size * ((size_t)i % layers));
    b.layer.weights.value_cache = (uint64_t)(values.at + size * ((size_t)i % layers));
  };
  const double all = time_calls(b, [&](int i) { return choose(i), attend(b.e, b.layer, FORM_ROWS); });
  const double stored = time_calls(b, [&](int i) { return choose(i), rope_store(b.e, b.layer); });
  double keys_read = 0, keys_met = 0;
  for (const sequence &s : sequences) {
    keys_read += s.cached + s.tokens;
    keys_met += (s.cached + (s.tokens + 1) / 2.0) * s.tokens;
  }
  const double us = all - stored, bytes = keys_read * GLM.kv_heads * GLM.head_dim * 4, operations = keys_met * GLM.heads * GLM.head_dim * 4;
  printf("%-36s %9.1f us in all, rope %7.1f us, attention %9.1f us: %7.0f GB/s of keys and values, %6.1f TFLOP/s\n", what, all, stored, us,
         bytes / us * 1e-3, operations / us * 1e-6);
}
