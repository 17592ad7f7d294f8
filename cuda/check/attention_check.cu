/*
 * Checks attention against float64, then times it. Build and run:
 *   node cuda/build.mjs --arch native --check attention_check && cuda/dist/attention_check
 * A case is a few sequences, each with tokens in the cache and tokens in the step. Block tables are shuffled, and everything that no token was
 * stored to is NaN: caches, results, parts. Exit 0 when all is right.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <algorithm>
#include <string>
#include "../attention.cuh"
#include "failing.h"

static const double DECODE_NMSE = 1e-8, PREFILL_NMSE = 1e-8;
enum { SAMPLES = 250, NAN_BITS = 0xffff };

static uint64_t seed = 1;
static uint32_t random_bits() {
  seed = seed * 6364136223846793005ull + 1442695040888963407ull;
  return (uint32_t)(seed >> 33);
}
static int random_below(int bound) { return (int)(random_bits() % (uint32_t)bound); }
/* Even in -1.7 .. 1.7: variance about 1. */
static float random_float() { return ((float)(random_bits() & 0xffff) / 32768.0f - 1) * 1.7f; }

struct sequence {
  int cached, tokens;
};
struct heads_shape {
  const char *name;
  int heads, kv_heads, head_dim, rotary;
  bool has_norms;
};
static const heads_shape GLM = {"glm", 96, 8, 128, 64, false}, GLM_NORMS = {"glm with norms", 96, 8, 128, 64, true};

template <typename T> struct on_device {
  T *at = nullptr;
  size_t count = 0;
  void allocate(size_t n) {
    count = n ? n : 1;
    CUDA(cudaMalloc((void **)&at, count * sizeof(T)));
    CUDA(cudaMemset(at, 0xff, count * sizeof(T)));
  }
  void put(const std::vector<T> &from) {
    allocate(from.size());
    CUDA(cudaMemcpy(at, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice));
  }
  std::vector<T> get() const {
    std::vector<T> to(count);
    CUDA(cudaMemcpy(to.data(), at, count * sizeof(T), cudaMemcpyDeviceToHost));
    return to;
  }
  ~on_device() { cudaFree(at); }
};

static __global__ void fill_kernel(__half *to, size_t count) {
  for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += (size_t)gridDim.x * blockDim.x) {
    const uint32_t bits = (uint32_t)i * 2654435761u;
    to[i] = __float2half((float)(int)(bits ^ bits >> 15) * 7.9e-10f);
  }
}

/* An engine with the buffers that attention needs, and a step. */
struct bench {
  heads_shape shape;
  std::vector<sequence> sequences;
  tcu_engine e = {};
  layer_binding layer = {};
  int tokens = 0, width = 0, most_blocks = 0, kv_blocks = 0;
  std::vector<int32_t> positions, cache_rows, runs, run_of_token, tables;
  std::vector<float> angles, qkv, q_norm, k_norm;
  on_device<int32_t> d_positions, d_cache_rows, d_runs, d_run_of_token, d_tables;
  on_device<float> d_angles, d_qkv, d_q_norm, d_k_norm, d_out, d_parts;

  bench(const heads_shape &heads, const std::vector<sequence> &list, int bound) : shape(heads), sequences(list) {
    int most_keys = 0;
    for (const sequence &s : sequences) {
      const int keys = s.cached + s.tokens;
      most_keys = std::max(most_keys, keys);
      kv_blocks += (keys + 31) / 32;
      tokens += s.tokens;
    }
    kv_blocks += 3; /* some that belong to nobody */
    most_blocks = (std::max(most_keys, bound) + 31) / 32;
    make_step();
    make_engine(std::max(most_keys, bound));
  }

  void make_step() {
    std::vector<int32_t> order((size_t)kv_blocks);
    for (int i = 0; i < kv_blocks; i++) order[(size_t)i] = i;
    for (int i = kv_blocks - 1; i > 0; i--) std::swap(order[(size_t)i], order[(size_t)random_below(i + 1)]);
    const int count = (int)sequences.size();
    tables.assign((size_t)count * (size_t)most_blocks, 0x7fffffff);
    int next = 0, token = 0;
    for (int s = 0; s < count; s++) {
      const int row = count - 1 - s, keys = sequences[(size_t)s].cached + sequences[(size_t)s].tokens;
      for (int i = 0; i < (keys + 31) / 32; i++) tables[(size_t)row * (size_t)most_blocks + (size_t)i] = order[(size_t)next++];
      runs.insert(runs.end(), {token, sequences[(size_t)s].tokens, row, 0});
      for (int i = 0; i < sequences[(size_t)s].tokens; i++, token++) {
        const int position = sequences[(size_t)s].cached + i;
        positions.push_back(position);
        run_of_token.push_back(s);
        cache_rows.push_back(row_of(s, position));
        for (int j = 0; j < shape.rotary; j++) {
          const double angle = position * pow(10000.0, -2.0 * (j % (shape.rotary / 2)) / shape.rotary);
          angles.push_back((float)(j < shape.rotary / 2 ? cos(angle) : sin(angle)));
        }
      }
    }
    width = (shape.heads + 2 * shape.kv_heads) * shape.head_dim;
    qkv.resize((size_t)tokens * (size_t)width);
    for (float &x : qkv) x = random_float();
    for (int i = 0; i < shape.head_dim; i++) q_norm.push_back(1 + random_float() / 4), k_norm.push_back(1 + random_float() / 4);
  }

  /* Where a sequence's token lies in the cache. */
  int row_of(int s, int position) const {
    const int row = (int)sequences.size() - 1 - s;
    return tables[(size_t)row * (size_t)most_blocks + (size_t)(position / 32)] * 32 + position % 32;
  }
  size_t cache_at(int row, int kv_head) const {
    return (((size_t)(row / 32) * (size_t)shape.kv_heads + (size_t)kv_head) * 32 + (size_t)(row % 32)) * (size_t)shape.head_dim;
  }
  size_t cache_size() const { return (size_t)kv_blocks * 32 * (size_t)(shape.kv_heads * shape.head_dim); }

  void make_engine(int most_keys) {
    cudaDeviceProp properties;
    CUDA(cudaGetDeviceProperties(&properties, 0));
    e.multiprocessors = properties.multiProcessorCount;
    CUDA(cudaStreamCreate(&e.stream));
    tcu_shape &to = e.shape;
    to.heads = shape.heads, to.kv_heads = shape.kv_heads, to.head_dim = shape.head_dim, to.rotary = shape.rotary, to.epsilon = 1e-5f;
    to.ubatch = tokens, to.sequences = (int)sequences.size(), to.kv_blocks = kv_blocks, to.blocks_per_sequence = most_blocks;
    NEED(check_attention(to));
    d_positions.put(positions), d_cache_rows.put(cache_rows), d_runs.put(runs), d_run_of_token.put(run_of_token), d_tables.put(tables);
    d_angles.put(angles), d_qkv.put(qkv), d_q_norm.put(q_norm), d_k_norm.put(k_norm);
    d_out.allocate((size_t)tokens * (size_t)(shape.heads * shape.head_dim));
    d_parts.allocate(attention_parts_floats(to));
    e.b.step.positions = d_positions.at, e.b.step.cache_rows = d_cache_rows.at, e.b.step.runs = d_runs.at, e.b.step.angles = d_angles.at;
    e.b.step.run_of_token = d_run_of_token.at, e.b.step.block_tables = d_tables.at;
    e.b.qkv = d_qkv.at, e.b.attended.rows = d_out.at, e.b.attended.digits = 1, e.b.parts = d_parts.at, e.b.parts_floats = attention_parts_floats(to);
    e.step.token_count = tokens, e.step.run_count = (int)sequences.size(), e.step.most_keys = most_keys;
    if (shape.has_norms) layer.weights.q_norm = (uint64_t)d_q_norm.at, layer.weights.k_norm = (uint64_t)d_k_norm.at;
  }
  ~bench() { cudaStreamDestroy(e.stream); }
};

/* Norm and rotation in float64. */
static std::vector<double> rope(const bench &b, int token, const float *x, const std::vector<float> &norm) {
  const int head_dim = b.shape.head_dim, pairs = b.shape.rotary / 2;
  std::vector<double> y(x, x + head_dim);
  if (b.shape.has_norms) {
    double sum = 0;
    for (const double a : y) sum += a * a;
    for (int i = 0; i < head_dim; i++) y[(size_t)i] *= norm[(size_t)i] / sqrt(sum / head_dim + (double)b.e.shape.epsilon);
  }
  const float *angles = b.angles.data() + (size_t)token * (size_t)b.shape.rotary;
  for (int i = 0; i < pairs; i++) {
    const double first = y[(size_t)i], second = y[(size_t)(i + pairs)], cosine = angles[i], sine = angles[i + pairs];
    y[(size_t)i] = first * cosine - second * sine;
    y[(size_t)(i + pairs)] = first * sine + second * cosine;
  }
  return y;
}

/* f16 to f32, from a table: the reference does it a billion times. */
static float widen(uint16_t bits) {
  static const std::vector<float> table = [] {
    std::vector<float> all(1 << 16);
    for (size_t i = 0; i < all.size(); i++) all[i] = __half2float(__half(__half_raw{(unsigned short)i}));
    return all;
  }();
  return table[bits];
}

/* Rows that the step stored are right, all others are what they were. Gives the number of elements that are wrong. */
static long check_cache(const bench &b, const std::vector<uint16_t> &before, const std::vector<uint16_t> &after, bool is_value) {
  std::vector<uint16_t> rest = after;
  long wrong = 0;
  for (int t = 0; t < b.tokens; t++) {
    for (int h = 0; h < b.shape.kv_heads; h++) {
      const int vector = b.shape.heads + h + (is_value ? b.shape.kv_heads : 0);
      const float *x = b.qkv.data() + (size_t)t * (size_t)b.width + (size_t)vector * (size_t)b.shape.head_dim;
      const std::vector<double> expected = is_value ? std::vector<double>(x, x + b.shape.head_dim) : rope(b, t, x, b.k_norm);
      const size_t at = b.cache_at(b.cache_rows[(size_t)t], h);
      for (int i = 0; i < b.shape.head_dim; i++) {
        const double error = fabs(expected[(size_t)i] - (double)widen(after[at + (size_t)i]));
        wrong += !(error <= fabs(expected[(size_t)i]) / 2047 + 1e-6);
        rest[at + (size_t)i] = before[at + (size_t)i];
      }
    }
  }
  for (size_t i = 0; i < rest.size(); i++) wrong += rest[i] != before[i];
  return wrong;
}

/* Error and size, squared and summed, of one head of one token. */
static void compare(const bench &b, const std::vector<float> &out, const std::vector<uint16_t> &keys, const std::vector<uint16_t> &values, int token,
                    int head, double &error, double &size) {
  const int head_dim = b.shape.head_dim, kv_head = head / (b.shape.heads / b.shape.kv_heads);
  const float *x = b.qkv.data() + (size_t)token * (size_t)b.width + (size_t)head * (size_t)head_dim;
  const std::vector<double> q = rope(b, token, x, b.q_norm);
  const int count = b.positions[(size_t)token] + 1, s = b.run_of_token[(size_t)token];
  std::vector<double> scores((size_t)count), sums((size_t)head_dim);
  double largest = -INFINITY, total = 0;
  for (int p = 0; p < count; p++) {
    const uint16_t *key = keys.data() + b.cache_at(b.row_of(s, p), kv_head);
    double score = 0;
    for (int i = 0; i < head_dim; i++) score += q[(size_t)i] * (double)widen(key[i]);
    scores[(size_t)p] = score / sqrt(head_dim);
    largest = std::max(largest, scores[(size_t)p]);
  }
  for (int p = 0; p < count; p++) {
    const uint16_t *value = values.data() + b.cache_at(b.row_of(s, p), kv_head);
    const double weight = exp(scores[(size_t)p] - largest);
    total += weight;
    for (int i = 0; i < head_dim; i++) sums[(size_t)i] += weight * (double)widen(value[i]);
  }
  const float *y = out.data() + ((size_t)token * (size_t)b.shape.heads + (size_t)head) * (size_t)head_dim;
  for (int i = 0; i < head_dim; i++) {
    const double expected = sums[(size_t)i] / total;
    error += (expected - (double)y[i]) * (expected - (double)y[i]);
    size += expected * expected;
  }
}

/* How many groups of q8x32 are not what wasm/quantize.c makes of the rows. */
static long check_records(const std::vector<float> &rows, const std::vector<int8_t> &values, const std::vector<float> &scales, const std::vector<float> &sums) {
  long wrong = 0;
  for (size_t i = 0; i < rows.size(); i += 32) {
    float most = 0;
    for (size_t k = i; k < i + 32; k++) most = std::max(most, fabsf(rows[k]));
    const float scale = most / 127, inverse = most > 1e-35f ? 127 / most : 0;
    for (size_t g = i; g < i + 32; g += GROUP) {
      int sum = 0;
      bool right = scales[g / GROUP] == scale;
      for (size_t k = g; k < g + GROUP; k++) {
        const int value = (int)rintf(rows[k] * inverse);
        sum += value;
        right = right && values[k] == value;
      }
      wrong += !right || sums[g / GROUP] != scale * (float)sum;
    }
  }
  return wrong;
}

static int failures = 0, cases = 0;

/* `bound`: what the host says of the contexts' lengths, when it is more than they have. */
static void check(const char *what, const heads_shape &shape, const std::vector<sequence> &sequences, int bound = 0) {
  at_hand = std::string(shape.name) + ", " + what + ", " + std::to_string(sequences[0].cached) + "+" + std::to_string(sequences[0].tokens) + " ...";
  bench b(shape, sequences, bound);
  std::vector<uint16_t> keys(b.cache_size(), NAN_BITS), values = keys;
  for (size_t s = 0; s < sequences.size(); s++) {
    for (int p = 0; p < sequences[s].cached; p++) {
      for (int h = 0; h < shape.kv_heads; h++) {
        const size_t at = b.cache_at(b.row_of((int)s, p), h);
        for (size_t i = at; i < at + (size_t)shape.head_dim; i++) {
          const __half key = __float2half(random_float()), value = __float2half(random_float());
          memcpy(&keys[i], &key, 2);
          memcpy(&values[i], &value, 2);
        }
      }
    }
  }
  on_device<uint16_t> d_keys, d_values;
  d_keys.put(keys), d_values.put(values);
  b.layer.weights.key_cache = (uint64_t)d_keys.at, b.layer.weights.value_cache = (uint64_t)d_values.at;
  /* decode quantises on the way */
  const bool quantizes = b.tokens == (int)sequences.size() && shape.head_dim % 32 == 0;
  on_device<int8_t> d_values8;
  on_device<float> d_scales, d_sums;
  const size_t elements = (size_t)b.tokens * (size_t)(shape.heads * shape.head_dim);
  d_values8.allocate(elements), d_scales.allocate(elements / GROUP), d_sums.allocate(elements / GROUP);
  b.e.b.attended.q8x32 = {d_values8.at, d_scales.at, d_sums.at};
  NEED(attend(b.e, b.layer, quantizes ? FORM_Q8X32 : FORM_ROWS));
  CUDA(cudaStreamSynchronize(b.e.stream));

  const std::vector<uint16_t> keys_after = d_keys.get(), values_after = d_values.get();
  const long wrong_keys = check_cache(b, keys, keys_after, false), wrong_values = check_cache(b, values, values_after, true);
  const std::vector<float> out = b.d_out.get();
  const long unset = std::count_if(out.begin(), out.end(), [](float x) { return !isfinite(x); });
  const long wrong_records = quantizes ? check_records(out, d_values8.get(), d_scales.get(), d_sums.get()) : 0;
  double error = 0, size = 0, worst = 0;
  int worst_token = 0, worst_head = 0;
  const long pairs = (long)b.tokens * shape.heads;
  for (long i = 0; i < std::min(pairs, (long)SAMPLES); i++) {
    const long pair = pairs <= SAMPLES ? i : i == 0 ? 0 : i == 1 ? pairs - 1 : random_below((int)pairs);
    const int token = (int)(pair / shape.heads), head = (int)(pair % shape.heads);
    double own_error = 0, own_size = 0;
    compare(b, out, keys_after, values_after, token, head, own_error, own_size);
    if (!(own_error / own_size <= worst)) worst = own_error / own_size, worst_token = token, worst_head = head;
    error += own_error;
    size += own_size;
  }
  const bool is_decode = b.tokens == (int)sequences.size();
  const double nmse = error / size, most = is_decode ? DECODE_NMSE : PREFILL_NMSE;
  const bool is_right = nmse <= most && worst <= 100 * most && unset == 0 && wrong_keys == 0 && wrong_values == 0 && wrong_records == 0;
  cases++;
  failures += !is_right;
  printf("%s %s, %s (%d/%d x %d):", is_right ? "ok    " : "FAILED", shape.name, what, shape.heads, shape.kv_heads, shape.head_dim);
  for (const sequence &s : sequences) printf(" %d+%d", s.cached, s.tokens);
  printf("  nmse %.2e, worst %.2e (token %d, head %d)", nmse, worst, worst_token, worst_head);
  if (!is_right) printf("; not finite %ld, wrong in cache: keys %ld, values %ld, wrong records %ld", unset, wrong_keys, wrong_values, wrong_records);
  printf("\n");
}

static void check_all() {
  const heads_shape shapes[] = {GLM, GLM_NORMS, {"tiny", 4, 2, 32, 32, false},
                                {"tiny with norms", 8, 2, 64, 64, true},
                                {"one KV head", 40, 1, 64, 32, false},
                                {"no groups", 4, 4, 96, 96, false},
                                {"odd width", 6, 2, 80, 40, true},
                                {"wide", 16, 4, 256, 64, true}};
  for (const heads_shape &shape : shapes) {
    for (const int context : {1, 31, 32, 33, 1000, 8192}) check("decode", shape, {{context - 1, 1}});
    check("decode, sequences", shape, {{0, 1}, {999, 1}, {32, 1}, {8191, 1}, {63, 1}});
    check("decode, loose bound", shape, {{0, 1}, {500, 1}, {3000, 1}}, 32768);
    check("decode, many", shape, std::vector<sequence>(40, {70, 1}));
    for (const int tokens : {5, 31, 64, 700}) check("prefill", shape, {{0, tokens}});
    for (const int cached : {1, 31, 1000}) check("prefill on cache", shape, {{cached, 133}});
    check("prefill, sequences", shape, {{0, 17}, {100, 64}, {31, 1}, {1000, 300}});
    check("mixed", shape, {{1000, 1}, {0, 200}, {33, 1}, {0, 1}, {64, 40}, {4000, 1}});
  }
}

#include "attention_timing.h"

int main() {
  check_all();
  if (failures) {
    printf("%d of %d cases FAILED\n", failures, cases);
    return 1;
  }
  printf("all %d cases are right\n", cases);
  for (const int context : {1, 512, 2048, 8192, 32768}) {
    time_case(("decode at " + std::to_string(context)).c_str(), {{context - 1, 1}});
  }
  time_case("decode, 16 sequences at 2048", std::vector<sequence>(16, {2047, 1}));
  time_case("decode, 64 sequences at 2048", std::vector<sequence>(64, {2047, 1}));
  time_case("prefill, 512 tokens", {{0, 512}});
  time_case("prefill, 2048 tokens", {{0, 2048}});
  time_case("prefill, 2048 tokens on 8192", {{8192, 2048}});
  time_case("prefill, 4 sequences of 512", std::vector<sequence>(4, {0, 512}));
  time_case("mixed, 2048 tokens and 8 at 8192", {{0, 2048}, {8191, 1}, {8191, 1}, {8191, 1}, {8191, 1}, {8191, 1}, {8191, 1}, {8191, 1}, {8191, 1}});
  return 0;
}
