/*
 * Checks tiles.cu, experts.cu and elementwise.cu against float64 on the host, then times them at the shapes of GLM-4.5-Air. Takes no arguments; answers 0
 * when everything is right.
 *
 *     node build.mjs --arch sm_90 --check tiles_check && dist/tiles_check
 */
#include <algorithm>
#include "tiles_reference.cuh"

/* An engine with what the functions under check read of one. */
static tcu_engine bare_engine() {
  tcu_engine e = {};
  REQUIRE(cudaStreamCreate(&e.stream));
  REQUIRE(cudaDeviceGetAttribute(&e.multiprocessors, cudaDevAttrMultiProcessorCount, 0));
  e.shape.digits = 1;
  return e;
}

static const float POISON = NAN;

/* ---- one matrix ---- */

/*
 * One product with guard columns and rows around y. `multiprocessors` 1 makes matmul_tiles take wide tiles, very many narrow ones.
 */
static void check_product(tcu_engine &e, const matrix_under_check &w, const rows_under_check &x, int tokens, bool add, bool with_bias, int multiprocessors,
                          int samples, random_source &random) {
  const int stride = w.rows + 5;
  std::vector<float> before((size_t)(tokens + 1) * (size_t)stride, POISON), bias((size_t)w.rows);
  if (add) {
    for (int t = 0; t < tokens; t++) {
      for (int row = 0; row < w.rows; row++) before[(size_t)t * (size_t)stride + (size_t)row] = random.normal();
    }
  }
  for (float &b : bias) b = random.normal();
  on_device<float> y(before), device_bias(bias);
  tcu_engine other = e;
  other.multiprocessors = multiprocessors;
  REQUIRE(matmul_tiles(other, w.matrix(), x.device(), y.data, stride, add ? MATMUL_ADD : MATMUL_STORE, with_bias ? device_bias.data : nullptr, tokens));
  REQUIRE(cudaStreamSynchronize(e.stream));
  const std::vector<float> got = y.get();

  char name[160];
  snprintf(name, sizeof name, "%s [%d x %d], %d tokens of %d digits, %s%s%s", w.format.name, w.rows, w.columns, tokens, x.digits,
           multiprocessors == 1 ? "wide" : "narrow", add ? ", add" : "", with_bias ? ", bias" : "");
  for (size_t i = 0; i < got.size(); i++) {
    const bool inside = i % (size_t)stride < (size_t)w.rows && i / (size_t)stride < (size_t)tokens;
    if (std::isfinite(got[i]) == inside) continue;
    return fail("%s: element [%d][%d] %s", name, (int)(i / (size_t)stride), (int)(i % (size_t)stride), inside ? "is not finite" : "was written");
  }
  error_measure error;
  for (int i = 0; i < samples; i++) {
    /* the corners first */
    const int row = i < 4 ? i % 2 * (w.rows - 1) : (int)(random.bits() % (uint32_t)w.rows);
    const int t = i < 4 ? i / 2 * (tokens - 1) : (int)(random.bits() % (uint32_t)tokens);
    const size_t at = (size_t)t * (size_t)stride + (size_t)row;
    error.add(got[at], product(w, 0, row, x, (size_t)t) + (add ? before[at] : 0) + (with_bias ? bias[(size_t)row] : 0));
  }
  if (!(error.nmse() <= bound_of(w.format.activation))) fail("%s: NMSE %.3g", name, error.nmse());
}

static void check_products(tcu_engine &e, random_source &random) {
  struct { int rows, blocks, tokens; bool add, bias; } cases[] = {
      {1, 1, 9, false, false},    {100, 3, 9, false, true},  {128, 2, 64, false, false},
      {200, 5, 65, true, false}, {333, 8, 130, true, true}, {1408, 44, 300, false, false},
  };
  for (const format_numbers &format : FORMATS_CHECKED) {
    const int before = failures, block = format.elements == 1 ? 8 : format.elements;
    for (const auto &c : cases) {
      /* blocks of float formats are 8 columns */
      const int columns = block == 256 ? std::max(c.blocks / 6, 1) * 256 : c.blocks * block;
      const matrix_under_check w(format.id, c.rows, columns, 1, 1, random);
      for (int digits : {1, 2}) {
        const rows_under_check x(c.tokens, columns, digits, random);
        check_product(e, w, x, c.tokens, c.add, c.bias, 1, 400, random);
        check_product(e, w, x, c.tokens, c.add, c.bias, 1 << 30, 400, random);
      }
    }
    printf("%-6s products %s\n", format.name, failures == before ? "ok" : "FAILED");
  }
}

/* ---- silu, quantisation ---- */

/* wasm/quantize.c, one group of 16 at a time: `most` of the whole block, `factor` of this group. */
static void check_group(const rows_under_check &got, int form, size_t group, float most, float scale, float inverse, const char *name) {
  int sum = 0;
  for (size_t i = group * GROUP; i < (group + 1) * GROUP; i++) {
    const int want = (int)nearbyintf(got.rows[i] * inverse);
    sum += want;
    if (got.values[form][i] != want) return fail("%s: value %zu is %d, expected %d (largest %g)", name, i, got.values[form][i], want, most);
  }
  if (got.scales[form][group] != scale) fail("%s: scale %zu is %.9g, expected %.9g", name, group, got.scales[form][group], scale);
  if (got.sums[form][group] != scale * (float)sum) fail("%s: sum %zu is %.9g, expected %.9g", name, group, got.sums[form][group], scale * (float)sum);
}

static float most_of(const std::vector<float> &x, size_t begin, size_t count) {
  float most = 0;
  for (size_t i = begin; i < begin + count; i++) most = std::max(most, fabsf(x[i]));
  return most;
}

static void check_silu(tcu_engine &e, int rows, int columns, random_source &random) {
  const int before = failures, forms = FORM_ROWS | FORM_Q8X32 | (columns % 256 == 0 ? FORM_Q8X256 : 0);
  std::vector<float> gated((size_t)rows * 2 * (size_t)columns);
  for (float &x : gated) x = 4 * random.normal();
  for (int i = 0; i < 32; i++) gated[(size_t)i] = 0; /* a block of zeros */
  on_device<float> device_gated(gated);
  rows_under_check y(rows, columns, 1);
  REQUIRE(silu_and_quantize(e, y.device(), forms, device_gated.data, columns, rows));
  REQUIRE(cudaStreamSynchronize(e.stream));
  for (int activation = 0; activation < 3; activation++) y.read_back(activation);
  error_measure error;
  for (size_t i = 0; i < y.size(); i++) {
    const size_t at = i / (size_t)columns * 2 * (size_t)columns + i % (size_t)columns;
    const double gate = gated[at];
    error.add(y.rows[i], gate / (1 + exp(-gate)) * gated[at + (size_t)columns]);
  }
  if (!(error.nmse() <= 1e-12)) fail("silu [%d, %d]: NMSE %.3g", rows, columns, error.nmse());
  for (size_t group = 0; group < y.size() / GROUP && failures == before; group++) {
    const float most = most_of(y.rows, group / 2 * 32, 32), inverse = most > 1e-35f ? 127 / most : 0;
    check_group(y, 0, group, most, most / 127, inverse, "silu to q8x32");
    if (!(forms & FORM_Q8X256)) continue;
    const float all = most_of(y.rows, group / 16 * 256, 256), own = most_of(y.rows, group * GROUP, GROUP);
    const float factor = std::min(std::max(ceilf(own * 8 / all), 1.0f), 8.0f), scale = all / (127 * 8) * factor;
    check_group(y, 1, group, all, scale, (all > 1e-35f ? 127 / all : 0) * (8 / factor), "silu to q8x256");
  }
  printf("silu_and_quantize [%d, %d] %s\n", rows, columns, failures == before ? "ok" : "FAILED");
}

/* ---- experts ---- */

/* Everything that experts_tiles takes from an engine. */
struct experts_under_check {
  tcu_engine e;
  int tokens, hidden, width, experts, used, pairs;
  matrix_under_check gate, up, down;
  rows_under_check x, h;
  std::vector<int32_t> ids;
  std::vector<float> weights;
  on_device<int32_t> device_ids, offsets, pair_token, pair_slot, tiles;
  on_device<float> device_weights, pair_weight, gated, routed;
  experts_under_check(const tcu_engine &engine, const int (&formats)[3], int tokens, int digits, int hidden, int width, int experts, int used, int distinct,
                      random_source &random)
      : e(engine), tokens(tokens), hidden(hidden), width(width), experts(experts), used(used), pairs(tokens * used),
        gate(formats[0], width, hidden, experts, distinct, random), up(formats[1], width, hidden, experts, distinct, random),
        down(formats[2], hidden, width, experts, distinct, random), x(tokens, hidden, digits, random), h(pairs, width, digits), ids((size_t)pairs), weights((size_t)pairs),
        device_ids((size_t)pairs), offsets((size_t)experts + 1), pair_token((size_t)pairs), pair_slot((size_t)pairs),
        tiles((size_t)(1 + 2 * (pairs / (LEAST_TILE_VECTORS / digits) + experts))), device_weights((size_t)pairs), pair_weight((size_t)pairs),
        gated((size_t)pairs * (size_t)std::max(2 * width, hidden)), routed((size_t)tokens * (size_t)hidden) {
    e.shape.hidden = hidden, e.shape.digits = digits, e.shape.experts = experts, e.shape.experts_used = used, e.shape.ffn_expert = width;
    e.b.normed = x.device(), e.b.hidden = h.device();
    e.b.expert_ids = device_ids.data, e.b.expert_weights = device_weights.data;
    e.b.gated = gated.data, e.b.routed = routed.data;
    e.b.pairs = {offsets.data, pair_token.data, pair_slot.data, pair_weight.data, tiles.data};
    for (float &weight : weights) weight = 0.05f + random.uniform();
  }
  /* Every token gets `used` experts below `most`, ascending; all get `always` unless that is negative. */
  void route(int most, int always, random_source &random) {
    for (int t = 0; t < tokens; t++) {
      std::vector<int32_t> own;
      if (always >= 0) own.push_back(always);
      while ((int)own.size() < used) {
        const int32_t id = (int32_t)(random.bits() % (uint32_t)most);
        if (std::find(own.begin(), own.end(), id) == own.end()) own.push_back(id);
      }
      std::sort(own.begin(), own.end());
      std::copy(own.begin(), own.end(), ids.begin() + t * used);
    }
    device_ids.put(ids), device_weights.put(weights);
  }
  void run() {
    REQUIRE(experts_tiles(e, {gate.matrix(), up.matrix(), down.matrix()}, tokens));
  }
};

static void check_groups(const experts_under_check &c, const char *name) {
  const std::vector<int32_t> offsets = c.offsets.get(), token = c.pair_token.get(), slot = c.pair_slot.get();
  const std::vector<float> weight = c.pair_weight.get();
  size_t p = 0;
  for (int expert = 0; expert < c.experts; expert++) {
    if (offsets[(size_t)expert] != (int)p) return fail("%s: expert %d begins at %d, expected %zu", name, expert, offsets[(size_t)expert], p);
    for (int s = 0; s < c.pairs; s++) {
      if (c.ids[(size_t)s] != expert) continue;
      if (token[p] != s / c.used || slot[p] != s || weight[p] != c.weights[(size_t)s]) return fail("%s: pair %zu is slot %d, expected %d", name, p, slot[p], s);
      p++;
    }
  }
  if (offsets.back() != c.pairs) fail("%s: pairs end at %d, expected %d", name, offsets.back(), c.pairs);
}

static void check_experts(tcu_engine &e, const int (&formats)[3], int tokens, int digits, int hidden, int width, bool one_has_all, random_source &random) {
  const int experts = 16, used = 4, before = failures;
  experts_under_check c(e, formats, tokens, digits, hidden, width, experts, used, experts, random);
  c.route(experts - 3, one_has_all ? 5 : -1, random); /* the last three are empty */
  c.routed.put(std::vector<float>((size_t)tokens * (size_t)hidden, POISON));
  c.gated.put(std::vector<float>(c.gated.count, POISON));
  c.run();
  REQUIRE(cudaStreamSynchronize(e.stream));
  char name[160];
  snprintf(name, sizeof name, "experts %s %s %s, hidden %d, width %d, %d tokens of %d digits%s", c.gate.format.name, c.up.format.name, c.down.format.name,
           hidden, width, tokens, digits, one_has_all ? ", one has all" : "");
  check_groups(c, name);
  const int activation = c.down.format.activation;
  c.h.read_back(activation);
  const std::vector<float> routed = c.routed.get();
  const std::vector<int32_t> slots = c.pair_slot.get();
  std::vector<int> pair_of((size_t)c.pairs);
  for (int p = 0; p < c.pairs; p++) pair_of[(size_t)slots[(size_t)p]] = p;
  for (size_t i = 0; i < routed.size(); i++) {
    if (!std::isfinite(routed[i])) return fail("%s: element [%zu][%zu] is not finite", name, i / (size_t)hidden, i % (size_t)hidden);
  }
  error_measure of_hidden, of_routed;
  for (int i = 0; i < 300; i++) {
    const int slot = (int)(random.bits() % (uint32_t)c.pairs), column = (int)(random.bits() % (uint32_t)width), expert = c.ids[(size_t)slot];
    const double gate = product(c.gate, expert, column, c.x, (size_t)(slot / used)), up = product(c.up, expert, column, c.x, (size_t)(slot / used));
    of_hidden.add(c.h.value(activation, (size_t)pair_of[(size_t)slot], column), gate / (1 + exp(-gate)) * up);
    const int t = (int)(random.bits() % (uint32_t)tokens), row = (int)(random.bits() % (uint32_t)hidden);
    double sum = 0;
    for (int s = t * used; s < (t + 1) * used; s++) {
      sum += (double)c.weights[(size_t)s] * product(c.down, c.ids[(size_t)s], row, c.h, (size_t)pair_of[(size_t)s]);
    }
    of_routed.add(routed[(size_t)t * (size_t)hidden + (size_t)row], sum);
  }
  /* hidden rows are quantised: its own error is the 8 bits', or the 16's */
  if (!(of_hidden.nmse() <= (activation == ACTIVATION_F32 ? 1e-9 : digits == 2 ? 1e-8 : 1e-3))) fail("%s: hidden's NMSE is %.3g", name, of_hidden.nmse());
  if (!(of_routed.nmse() <= bound_of(activation))) fail("%s: NMSE is %.3g", name, of_routed.nmse());
  printf("%s: %s\n", name, failures == before ? "ok" : "FAILED");
}

/* ---- times ---- */

/* Milliseconds of one call, the best of several rounds. */
template <typename Call> static double time_of(tcu_engine &e, Call call) {
  cudaEvent_t begin, end;
  REQUIRE(cudaEventCreate(&begin));
  REQUIRE(cudaEventCreate(&end));
  float best = 1e9f;
  for (int round = 0; round < 5; round++) {
    REQUIRE(cudaEventRecord(begin, e.stream));
    for (int i = 0; i < 4; i++) call();
    REQUIRE(cudaEventRecord(end, e.stream));
    REQUIRE(cudaEventSynchronize(end));
    float ms;
    REQUIRE(cudaEventElapsedTime(&ms, begin, end));
    best = std::min(best, ms / 4);
  }
  REQUIRE(cudaEventDestroy(begin));
  REQUIRE(cudaEventDestroy(end));
  return best;
}

static void time_products(tcu_engine &e, random_source &random) {
  struct { int format, rows, columns; } cases[] = {
      {FORMAT_Q8_0, 12288, 4096}, {FORMAT_Q8_0, 4096, 12288}, {FORMAT_Q8_0, 1024, 4096}, {FORMAT_Q8_0, 1408, 4096}, {FORMAT_Q8_0, 4096, 1408},
      {FORMAT_Q4_0, 12288, 4096}, {FORMAT_Q5_1, 12288, 4096}, {FORMAT_MXFP4, 12288, 4096}, {FORMAT_Q4_K, 12288, 4096}, {FORMAT_Q6_K, 12288, 4096},
      {FORMAT_IQ4_XS, 12288, 4096}, {FORMAT_F16, 4096, 4096}, {FORMAT_BF16, 4096, 4096}, {FORMAT_F32, 128, 4096},
  };
  for (const auto &c : cases) {
    const matrix_under_check w(c.format, c.rows, c.columns, 1, 1, random);
    const rows_under_check x(2048, c.columns, 1, random);
    on_device<float> y((size_t)2048 * (size_t)c.rows);
    check_product(e, w, x, 2048, false, false, e.multiprocessors, 200, random);
    printf("%-6s [%5d x %5d]", w.format.name, c.rows, c.columns);
    for (int tokens : {64, 512, 2048}) {
      const double ms = time_of(e, [&] { REQUIRE(matmul_tiles(e, w.matrix(), x.device(), y.data, c.rows, MATMUL_STORE, nullptr, tokens)); });
      printf("  %4d tokens %7.3f ms %6.1f TFLOP/s", tokens, ms, 2.0 * tokens * c.rows * c.columns / ms * 1e-9);
    }
    printf("\n");
  }
}

static void time_experts(tcu_engine &e, const int (&formats)[3], random_source &random) {
  printf("experts %s %s %s, 8 of 128, 4096 x 1408", numbers_of(formats[0]).name, numbers_of(formats[1]).name, numbers_of(formats[2]).name);
  for (int tokens : {64, 512, 2048}) {
    experts_under_check c(e, formats, tokens, 1, 4096, 1408, 128, 8, 2, random);
    c.route(128, -1, random);
    const double ms = time_of(e, [&] { c.run(); });
    printf("  %4d tokens %7.3f ms %6.1f TFLOP/s", tokens, ms, 6.0 * c.pairs * 1408 * 4096 / ms * 1e-9);
  }
  printf("\n");
}

int main() {
  random_source random = {88172645463325252ull};
  cudaDeviceProp device;
  REQUIRE(cudaGetDeviceProperties(&device, 0));
  printf("%s, %d.%d, %d multiprocessors\n", device.name, device.major, device.minor, device.multiProcessorCount);
  tcu_engine e = bare_engine();
  check_products(e, random);
  for (int columns : {32, 96, 256, 1408, 1536}) check_silu(e, 37, columns, random);
  const int uses[][3] = {{FORMAT_Q4_0, FORMAT_Q4_0, FORMAT_Q4_0}, {FORMAT_Q4_K, FORMAT_Q4_K, FORMAT_Q6_K}, {FORMAT_Q4_K, FORMAT_Q5_K, FORMAT_Q5_0},
                         {FORMAT_MXFP4, FORMAT_MXFP4, FORMAT_MXFP4}, {FORMAT_F16, FORMAT_BF16, FORMAT_F32}, {FORMAT_Q8_0, FORMAT_Q8_0, FORMAT_BF16}};
  for (const auto &formats : uses) {
    const int width = formats[2] == FORMAT_Q6_K ? 256 : 96;
    for (int digits : {1, 2}) {
      check_experts(e, formats, 9, digits, 256, width, false, random);
      check_experts(e, formats, 150, digits, 256, width, true, random);
      check_experts(e, formats, 600, digits, 512, width, true, random);
    }
  }
  time_products(e, random);
  time_experts(e, {FORMAT_Q4_0, FORMAT_Q4_0, FORMAT_Q4_0}, random);
  time_experts(e, {FORMAT_Q4_K, FORMAT_Q4_K, FORMAT_Q5_0}, random);
  printf(failures ? "%d FAILED\n" : "all right\n", failures);
  return failures != 0;
}
