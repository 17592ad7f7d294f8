/* An engine with GLM-4.5-Air's dimensions and random weights that keep numbers in range: what decode_check.cu works on. */
#pragma once
#include <string.h>
#include <sys/mman.h>
#include "failing.h"

enum { HIDDEN = 4096, HEADS = 96, KV_HEADS = 8, HEAD_DIM = 128, EXPERTS = 128, USED = 8, WIDTH = 1408, DENSE = 10944, VOCABULARY = 151552 };
enum { MOST_KEYS = 8192, SEQUENCES = 8, MARKS = 256 };

static __device__ uint32_t hash(uint64_t i) {
  i = (i + 1) * 0x9e3779b97f4a7c15ull;
  i ^= i >> 31;
  return (uint32_t)(i * 0xbf58476d1ce4e5b9ull >> 32);
}
/* Blocks of a f16 scale around `scale`, and random bytes. */
static __global__ void fill_blocks(uint8_t *to, uint64_t blocks, int bytes, float scale, uint64_t seed) {
  for (uint64_t i = blockIdx.x * (uint64_t)blockDim.x + threadIdx.x; i < blocks; i += (uint64_t)gridDim.x * blockDim.x) {
    uint16_t *block = (uint16_t *)(to + i * (uint64_t)bytes);
    block[0] = __half_as_ushort(__float2half(scale * (0.5f + (float)(hash(seed + i) & 1023) / 1024)));
    for (int k = 1; k < bytes / 2; k++) block[k] = (uint16_t)hash(seed + i * 31 + (uint64_t)k);
  }
}
static __global__ void fill_halves(__half *to, uint64_t count, uint64_t seed) {
  for (uint64_t i = blockIdx.x * (uint64_t)blockDim.x + threadIdx.x; i < count; i += (uint64_t)gridDim.x * blockDim.x) {
    to[i] = __float2half((float)(hash(seed + i) & 0xffff) / 32768 - 1);
  }
}
/* Numbers from `least` to `least` + `range`. */
static __global__ void fill_floats(float *to, uint64_t count, float least, float range, uint64_t seed) {
  for (uint64_t i = blockIdx.x * (uint64_t)blockDim.x + threadIdx.x; i < count; i += (uint64_t)gridDim.x * blockDim.x) {
    to[i] = least + range * (float)(hash(seed + i) & 0xffff) / 65536;
  }
}

struct decode_rig {
  tcu_engine *e = nullptr;
  bool hybrid;
  int layers, tokens, keys;
  tcu_host host = {};
  tcu_step step = {};
  std::vector<float *> routed;
  char *memory = nullptr;
  size_t bytes = 0, used = 0;
  uint64_t seed = 1;
  int32_t finished = 0;

  template <typename T> T *take(size_t count) {
    T *at = (T *)(memory + used);
    used = (used + count * sizeof(T) + 255) / 256 * 256;
    if (used > bytes) fail("the rig's host memory is too small");
    return at;
  }
  uint64_t floats(size_t count, float least, float range) {
    uint64_t address;
    NEED(tcu_memory(e, count * 4, &address));
    fill_floats<<<1024, 256, 0, e->stream>>>((float *)address, count, least, range, seed += 1ull << 40);
    return address;
  }
  uint64_t halves(size_t count) {
    uint64_t address;
    NEED(tcu_memory(e, count * 2, &address));
    fill_halves<<<1024, 256, 0, e->stream>>>((__half *)address, count, seed += 1ull << 40);
    return address;
  }
  tcu_matrix matrix(int format, int rows, int columns, int experts = 1) {
    const int block = format == FORMAT_Q8_0 ? 34 : 18;
    const uint64_t one = (uint64_t)rows * (uint64_t)(columns / 32) * (uint64_t)block;
    uint64_t address;
    NEED(tcu_memory(e, one * (uint64_t)experts, &address));
    fill_blocks<<<2048, 256, 0, e->stream>>>((uint8_t *)address, one * (uint64_t)experts / (uint64_t)block, block, format == FORMAT_Q8_0 ? 2e-4f : 4e-3f,
                                             seed += 1ull << 40);
    return {address, one, format, rows, columns, experts};
  }
  tcu_ffn network(int format, int width, int experts = 1) {
    return {matrix(format, width, HIDDEN, experts), matrix(format, width, HIDDEN, experts), matrix(format, HIDDEN, width, experts)};
  }

  decode_rig(bool hybrid_, int layers_, int tokens_, int keys_) : hybrid(hybrid_), layers(layers_), tokens(tokens_), keys(keys_) {
    tcu_shape s = {};
    s.hidden = HIDDEN, s.heads = HEADS, s.kv_heads = KV_HEADS, s.head_dim = HEAD_DIM, s.rotary = 64, s.vocabulary = VOCABULARY, s.layers = layers;
    s.ffn = DENSE, s.ffn_expert = WIDTH, s.experts = EXPERTS, s.experts_used = USED, s.device_experts = !hybrid;
    s.gating = GATING_SIGMOID, s.normalize_weights = 1, s.weights_scale = 1, s.epsilon = 1e-5f;
    s.ubatch = SEQUENCES, s.sequences = SEQUENCES, s.outputs = SEQUENCES, s.blocks_per_sequence = MOST_KEYS / KV_BLOCK_TOKENS;
    s.kv_blocks = s.blocks_per_sequence * SEQUENCES, s.top = 0, s.digits = 1, s.deadline_ms = 5000;
    double frequencies[32];
    for (int i = 0; i < 32; i++) frequencies[i] = pow(1e6, -i / 32.0);
    NEED(tcu_open(0, &s, frequencies, &e));
    bytes = (size_t)SEQUENCES * VOCABULARY * 4 + (size_t)layers * SEQUENCES * HIDDEN * 12 + (4u << 20);
    bytes = bytes / 4096 * 4096;
    memory = (char *)mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED) fail("mmap");
    NEED(tcu_register(e, memory, bytes));
    host.poison = take<int32_t>(64), host.published = take<int32_t>(64), host.completed = take<int32_t>(64);
    host.finished = take<int32_t>(64), host.status = take<int32_t>(64);
    host.logits = take<float>((size_t)SEQUENCES * VOCABULARY);
    host.marks = take<uint64_t>(MARKS), host.mark_count = MARKS;
    NEED(tcu_attach(e, &host));
    for (int layer = 0; layer < layers; layer++) bind(layer);
    const tcu_model model = {matrix(FORMAT_Q8_0, VOCABULARY, HIDDEN), floats(HIDDEN, 0.8f, 0.4f), matrix(FORMAT_Q8_0, VOCABULARY, HIDDEN)};
    NEED(tcu_bind_model(e, &model));
    fill_step(s.blocks_per_sequence);
    CUDA(cudaStreamSynchronize(e->stream));
  }

  void bind(int layer) {
    const int q = HEADS * HEAD_DIM, kv = KV_HEADS * HEAD_DIM;
    tcu_layer w = {};
    w.attention_norm = floats(HIDDEN, 0.8f, 0.4f), w.ffn_norm = floats(HIDDEN, 0.8f, 0.4f);
    w.q_bias = floats(q, -0.1f, 0.2f), w.k_bias = floats(kv, -0.1f, 0.2f), w.v_bias = floats(kv, -0.1f, 0.2f);
    w.q = matrix(FORMAT_Q8_0, q, HIDDEN), w.k = matrix(FORMAT_Q8_0, kv, HIDDEN), w.v = matrix(FORMAT_Q8_0, kv, HIDDEN);
    w.output = matrix(FORMAT_Q8_0, HIDDEN, q);
    const size_t cache = (size_t)MOST_KEYS * SEQUENCES * KV_HEADS * HEAD_DIM;
    w.key_cache = halves(cache), w.value_cache = halves(cache);
    tcu_slot slot = {};
    routed.push_back(nullptr);
    if (layer == 0) {
      w.dense = network(FORMAT_Q8_0, DENSE);
    } else {
      w.router = {floats((size_t)EXPERTS * HIDDEN, -0.03f, 0.06f), 0, FORMAT_F32, EXPERTS, HIDDEN, 1};
      w.selection_bias = floats(EXPERTS, -0.1f, 0.2f);
      w.shared = network(FORMAT_Q8_0, WIDTH);
      if (!hybrid) w.routed = network(FORMAT_Q4_0, WIDTH, EXPERTS);
      slot.q8x32 = take<uint8_t>(SEQUENCES * HIDDEN / 32 * 40);
      slot.expert_ids = take<int32_t>(SEQUENCES * USED), slot.expert_weights = take<float>(SEQUENCES * USED);
      slot.routed = routed[(size_t)layer] = take<float>(SEQUENCES * HIDDEN);
      slot.entry = layer;
    }
    NEED(tcu_bind_layer(e, layer, &w, hybrid && layer > 0 ? &slot : nullptr));
  }

  /* `tokens` sequences of one new token each, `keys` keys long. */
  void fill_step(int blocks) {
    int32_t *ids = take<int32_t>(SEQUENCES), *positions = take<int32_t>(SEQUENCES), *rows = take<int32_t>(SEQUENCES), *outputs = take<int32_t>(SEQUENCES);
    int32_t *runs = take<int32_t>(SEQUENCES * 4), *tables = take<int32_t>((size_t)(SEQUENCES * blocks));
    for (int t = 0; t < tokens; t++) {
      ids[t] = 1000 + 77 * t, positions[t] = keys - 1, outputs[t] = t;
      rows[t] = (t * blocks + (keys - 1) / KV_BLOCK_TOKENS) * KV_BLOCK_TOKENS + (keys - 1) % KV_BLOCK_TOKENS;
      const int32_t run[4] = {t, 1, t, 0};
      memcpy(runs + 4 * t, run, sizeof run);
      for (int i = 0; i < blocks; i++) tables[t * blocks + i] = t * blocks + i;
    }
    step = {ids, positions, rows, outputs, runs, tables, tokens, tokens, tokens, (keys + 511) / 512 * 512};
  }

  void begin() { NEED(tcu_begin_step(e, &step)); }
  void wait() {
    finished++;
    for (const double limit = seconds() + 20; load_acquire(host.finished) != finished;) {
      if (seconds() > limit) fail("a step does not end");
    }
    if (load_acquire(host.status)) fail("a step ended with status %d", load_acquire(host.status));
  }
  void end() {
    NEED(tcu_end_step(e));
    wait();
  }
  void close() {
    NEED(tcu_close(e));
    munmap(memory, bytes);
  }
};
