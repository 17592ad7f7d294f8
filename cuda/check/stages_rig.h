/* An engine with its host memory, one layer and a step record: what stages_check.cu works on. */
#pragma once
#include <sys/mman.h>
#include "failing.h"
#include "reference.h"

struct sizes {
  const char *name;
  int hidden, experts, used, vocabulary, top, gating, embedding_format, head_format, digits;
};

static tcu_shape shape_of(const sizes &z, int deadline_ms) {
  tcu_shape s = {};
  s.hidden = z.hidden, s.heads = 4, s.kv_heads = 2, s.head_dim = 64, s.rotary = 32, s.vocabulary = z.vocabulary, s.layers = 1;
  s.experts = z.experts, s.experts_used = z.used, s.gating = z.gating, s.normalize_weights = 1, s.weights_scale = 1.5f, s.epsilon = 1e-5f;
  s.ubatch = 16, s.sequences = 4, s.outputs = 4, s.kv_blocks = 16, s.blocks_per_sequence = 8, s.top = z.top;
  s.digits = z.digits, s.deadline_ms = deadline_ms;
  return s;
}

struct rig {
  tcu_engine *e = nullptr;
  sizes z;
  tcu_host host = {};
  tcu_slot slot = {};
  tcu_step step = {};
  tcu_layer layer = {};
  tcu_model model = {};
  float *routed = nullptr;
  float *rows = nullptr; /* f32[ubatch, hidden] in host memory, for copies */
  std::vector<float> bias;
  std::vector<uint8_t> embedding;
  char *memory = nullptr;
  size_t bytes = 0, used = 0;
  random_source random = {88172645463325252ull};

  /* Host memory for the device, zero at the start. */
  template <typename T> T *take(size_t count) {
    T *at = (T *)(memory + used);
    used = (used + count * sizeof(T) + 255) / 256 * 256;
    if (used > bytes) fail("the rig's host memory is too small");
    return at;
  }
  /* Device memory with a copy of the host's. */
  uint64_t upload(const void *data, size_t count) {
    uint64_t address;
    NEED(tcu_memory(e, count, &address));
    CUDA(cudaMemcpyAsync((void *)address, data, count, cudaMemcpyHostToDevice, e->stream));
    CUDA(cudaStreamSynchronize(e->stream));
    return address;
  }
  std::vector<float> normals(size_t count) {
    std::vector<float> values(count);
    for (float &value : values) value = random.normal();
    return values;
  }
  std::vector<uint8_t> weights(int format, int rows, int columns, size_t &row) {
    int block = 1, elements = 1;
    with_format(format, [&](auto w) { return block = decltype(w)::BYTES, elements = decltype(w)::ELEMENTS, 0; }, [] { return 0; });
    row = (size_t)(columns / elements * block);
    std::vector<uint8_t> bytes(row * (size_t)rows);
    random_weights(format, bytes.data(), bytes.size(), block, random);
    return bytes;
  }
  tcu_matrix matrix(const std::vector<uint8_t> &data, int format, int rows, int columns) {
    return {upload(data.data(), data.size()), 0, format, rows, columns, 1};
  }

  rig(const sizes &sizes, int deadline_ms = 5000) : z(sizes) {
    const tcu_shape s = shape_of(z, deadline_ms);
    const double frequencies[16] = {1, 0.5, 0.25, 0.125};
    NEED(tcu_open(0, &s, frequencies, &e));
    bytes = ((size_t)s.outputs * (size_t)z.vocabulary * 4 + (size_t)s.ubatch * (size_t)z.hidden * 16 + (1u << 20)) / 4096 * 4096;
    memory = (char *)mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED) fail("mmap");
    NEED(tcu_register(e, memory, bytes));
    host.poison = take<int32_t>(64), host.published = take<int32_t>(64), host.completed = take<int32_t>(64);
    host.finished = take<int32_t>(64), host.status = take<int32_t>(64);
    host.logits = take<float>((size_t)s.outputs * (size_t)z.vocabulary);
    host.hidden = take<float>((size_t)s.outputs * (size_t)z.hidden);
    host.top_ids = take<int32_t>((size_t)(s.outputs * z.top)), host.top_logits = take<float>((size_t)(s.outputs * z.top));
    host.marks = take<uint64_t>(256), host.mark_count = 256;
    NEED(tcu_attach(e, &host));
    bind();
    step.token_ids = take<int32_t>(16), step.positions = take<int32_t>(16), step.cache_rows = take<int32_t>(16), step.outputs = take<int32_t>(4);
    step.runs = take<int32_t>(16), step.block_tables = take<int32_t>(32);
    rows = take<float>((size_t)s.ubatch * (size_t)z.hidden);
  }

  void bind() {
    const size_t tokens = 16, hidden = (size_t)z.hidden;
    slot.normed = take<float>(tokens * hidden);
    slot.q8x32 = take<uint8_t>(tokens * (size_t)z.digits * hidden / 32 * 40);
    if (z.hidden % 256 == 0) slot.q8x256 = take<uint8_t>(tokens * (size_t)z.digits * hidden / 256 * 324);
    slot.expert_ids = take<int32_t>(tokens * (size_t)z.used), slot.expert_weights = take<float>(tokens * (size_t)z.used);
    slot.routed = routed = take<float>(tokens * hidden);
    slot.entry = 7;
    size_t row;
    const std::vector<uint8_t> router = weights(FORMAT_F32, z.experts, z.hidden, row);
    bias = normals((size_t)z.experts);
    const std::vector<float> norm = normals(hidden);
    layer.ffn_norm = upload(norm.data(), hidden * 4);
    layer.router = matrix(router, FORMAT_F32, z.experts, z.hidden);
    if (z.gating == GATING_SIGMOID) layer.selection_bias = upload(bias.data(), bias.size() * 4);
    NEED(tcu_bind_layer(e, 0, &layer, &slot));
    embedding = weights(z.embedding_format, z.vocabulary, z.hidden, row);
    std::vector<uint8_t> head = weights(z.head_format, z.vocabulary, z.hidden, row);
    /* equal logits, and one that is NaN */
    for (const size_t equal : {77, 900}) {
      if (z.vocabulary > (int)equal) memcpy(head.data() + equal * row, head.data() + 3 * row, row);
    }
    if (z.head_format == FORMAT_F32) memset(head.data() + 5 * row, 0xff, row);
    model.embedding = matrix(embedding, z.embedding_format, z.vocabulary, z.hidden);
    model.head = matrix(head, z.head_format, z.vocabulary, z.hidden);
    model.output_norm = upload(norm.data(), hidden * 4);
    NEED(tcu_bind_model(e, &model));
  }

  /* One run of `tokens` tokens. */
  void begin(int tokens, int outputs) {
    for (int t = 0; t < tokens; t++) {
      ((int32_t *)step.token_ids)[t] = (int32_t)(random.bits() % (uint32_t)z.vocabulary);
      ((int32_t *)step.positions)[t] = 20 + t, ((int32_t *)step.cache_rows)[t] = 20 + t;
    }
    for (int i = 0; i < outputs; i++) ((int32_t *)step.outputs)[i] = tokens - 1 - i;
    const int32_t run[4] = {0, tokens, 2, 0};
    memcpy((void *)step.runs, run, sizeof run);
    for (int i = 0; i < 32; i++) ((int32_t *)step.block_tables)[i] = 100 + i;
    step.token_count = tokens, step.run_count = 1, step.output_count = outputs, step.most_keys = 20 + tokens;
    NEED(tcu_begin_step(e, &step));
  }

  /* Waits for a word to reach `value`. */
  void await(const int32_t *word, int32_t value, const char *what, double limit = 20) {
    const double end = seconds() + limit;
    while (load_acquire(word) != value) {
      if (seconds() > end) fail("%s is %d, not %d, after %.0f s", what, load_acquire(word), value, limit);
    }
  }

  template <typename T> std::vector<T> fetch(const void *device, size_t count) {
    std::vector<T> values(count);
    CUDA(cudaStreamSynchronize(e->stream));
    CUDA(cudaMemcpy(values.data(), device, count * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
  }

  void close() {
    NEED(tcu_close(e));
    munmap(memory, bytes);
  }
};
