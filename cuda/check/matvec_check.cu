/*
 * Checks the matrix-vector products and the quantisation on a GPU against float64 on the CPU, then times them at GLM-4.5-Air's shapes. Build and run:
 *   node cuda/build.mjs --arch native --check matvec_check && cuda/dist/matvec_check
 * Exit 1 and a line for each case when a result is wrong.
 */
#include "matvec_timing.cuh"

static int failures = 0, cases = 0;
static tcu_engine e;
static random_source numbers = {0x9e3779b97f4a7c15ull};

/* Compares y with `want`, both [tokens, rows], y's rows stride apart; whatever lies between must still be NaN. */
static void compare(const char *what, const std::vector<float> &y, const std::vector<double> &want, int tokens, int rows, int stride, double bound) {
  double error = 0, size = 0, worst = -1;
  int worst_token = 0, worst_row = 0, touched = 0;
  for (int t = 0; t < tokens; t++) {
    for (int r = 0; r < stride; r++) {
      const double got = (double)y[(size_t)t * (size_t)stride + (size_t)r];
      if (r >= rows) {
        touched += got == got;
        continue;
      }
      const double expected = want[(size_t)t * (size_t)rows + (size_t)r], miss = got == got ? fabs(got - expected) : INFINITY;
      error += miss * miss, size += expected * expected;
      if (miss > worst) worst = miss, worst_token = t, worst_row = r;
    }
  }
  cases++;
  if (error <= bound * size && size > 0 && !touched) return;
  failures++;
  if (failures > 60) return;
  printf("WRONG %s: NMSE %.3g (bound %.1g), worst at token %d row %d: %.9g, expected %.9g%s\n", what, error / size, bound, worst_token, worst_row,
         (double)y[(size_t)worst_token * (size_t)stride + (size_t)worst_row], want[(size_t)worst_token * (size_t)rows + (size_t)worst_row],
         touched ? "; wrote outside" : "");
}

static void expect(bool right, const char *what, size_t at) {
  cases++;
  if (right) return;
  failures++;
  if (failures <= 60) printf("WRONG %s, first at %zu\n", what, at);
}

/* Rows with zeros, one tiny value and one large one among ordinary ones. */
static std::vector<float> random_rows(int tokens, int columns) {
  std::vector<float> x((size_t)tokens * (size_t)columns);
  for (size_t i = 0; i < x.size(); i++) x[i] = numbers.normal() * (i % 97 == 5 ? 20 : 1) * (i / 16 % 5 == 3 ? 0.02f : 1);
  for (int i = 0; i < 64 && columns > 64; i++) x[(size_t)columns - 1 - (size_t)i] = i < 32 ? 0 : 1e-38f;
  return x;
}

/* The numbers of wasm/quantize.c for `count` columns (whole blocks of 32 or 256). */
static void quantize_reference(const float *x, int count, bool is_q8x256, int8_t *values, float *scales, float *sums) {
  const int block = is_q8x256 ? 256 : 32;
  for (int i = 0; i < count; i += block) {
    float most = 0;
    for (int k = 0; k < block; k++) most = fmaxf(most, fabsf(x[i + k]));
    const float inverse = most > 1e-35f ? 127 / most : 0;
    for (int g = i; g < i + block; g += GROUP) {
      float most_of_16 = 0;
      for (int k = 0; k < GROUP; k++) most_of_16 = fmaxf(most_of_16, fabsf(x[g + k]));
      const float share = most > 0 ? ceilf(most_of_16 * 8 / most) : 0;
      const int factor = !is_q8x256 ? 8 : share < 1 ? 1 : share > 8 ? 8 : (int)share;
      int sum = 0;
      for (int k = 0; k < GROUP; k++) sum += values[g + k] = (int8_t)rintf(x[g + k] * (inverse * (8.0f / (float)factor)));
      scales[g / GROUP] = is_q8x256 ? most / 1016 * (float)factor : most / 127;
      sums[g / GROUP] = scales[g / GROUP] * (float)sum;
    }
  }
}

/* Both quantised forms of y, which must be exactly those of its rows. */
static void check_forms(const char *what, const activations &y, int forms, int tokens, int columns) {
  const size_t elements = (size_t)tokens * (size_t)columns * (size_t)y.digits;
  const std::vector<float> rows = host_copy(y.rows, (size_t)tokens * (size_t)columns);
  std::vector<int8_t> values(elements);
  std::vector<float> scales(elements / GROUP), sums(elements / GROUP);
  for (int form : {FORM_Q8X32, FORM_Q8X256}) {
    if (!(forms & form)) continue;
    for (int t = 0; t < tokens; t++) {
      std::vector<float> rest(&rows[(size_t)t * (size_t)columns], &rows[(size_t)t * (size_t)columns] + columns);
      for (int d = 0; d < y.digits; d++) {
        const size_t at = (size_t)(t * y.digits + d) * (size_t)columns;
        quantize_reference(rest.data(), columns, form == FORM_Q8X256, &values[at], &scales[at / GROUP], &sums[at / GROUP]);
        for (size_t i = 0; i < rest.size(); i++) rest[i] -= scales[(at + i) / GROUP] * (float)values[at + i];
      }
    }
    const quantized &q = form == FORM_Q8X256 ? y.q8x256 : y.q8x32;
    const std::vector<int8_t> got = host_copy(q.values, elements);
    const std::vector<float> got_scales = host_copy(q.scales, elements / GROUP), got_sums = host_copy(q.sums, elements / GROUP);
    size_t v = 0, s = 0, m = 0;
    while (v < elements && got[v] == values[v]) v++;
    while (s < scales.size() && got_scales[s] == scales[s]) s++;
    while (m < sums.size() && got_sums[m] == sums[m]) m++;
    char text[200];
    snprintf(text, sizeof text, "%s q%dx%d [%d x %d]: values (%zu), scales (%zu), sums (%zu)", what, 8 * y.digits, form == FORM_Q8X256 ? 256 : 32, tokens,
             columns, v, s, m);
    expect(v == elements && s == scales.size() && m == sums.size(), text, v);
  }
}

static void check_quantize(int columns) {
  const int tokens = 3, forms = FORM_ROWS | FORM_Q8X32 | (columns % 256 == 0 ? FORM_Q8X256 : 0);
  const std::vector<float> x = random_rows(tokens, columns), weight = random_rows(1, columns);
  const std::vector<int32_t> index = {2, 0, 1};
  float *device_x = device_copy(x), *device_weight = device_copy(weight);
  int32_t *device_index = device_copy(index);
  for (int indexed = 0; indexed < 2; indexed++) {
    poison(e.b.normed, (size_t)tokens * (size_t)columns);
    REQUIRE_OK(norm_and_quantize(e, e.b.normed, forms, device_x, device_weight, indexed ? device_index : nullptr, columns, tokens));
    std::vector<double> want;
    for (int t = 0; t < tokens; t++) {
      const float *row = &x[(size_t)(indexed ? index[(size_t)t] : t) * (size_t)columns];
      double sum = 0;
      for (int i = 0; i < columns; i++) sum += (double)row[i] * row[i];
      for (int i = 0; i < columns; i++) want.push_back(row[i] / sqrt(sum / columns + (double)e.shape.epsilon) * weight[(size_t)i]);
    }
    compare(indexed ? "norm, indexed" : "norm", host_copy(e.b.normed.rows, want.size()), want, tokens, columns, columns, 1e-13);
    check_forms("norm", e.b.normed, forms, tokens, columns);
  }
  REQUIRE(cudaMemcpy(e.b.normed.rows, x.data(), x.size() * 4, cudaMemcpyHostToDevice));
  REQUIRE_OK(quantize_rows(e, e.b.normed, forms, columns, tokens));
  check_forms("quantize", e.b.normed, forms, tokens, columns);
  for (void *p : {(void *)device_x, (void *)device_weight, (void *)device_index}) cudaFree(p);
}

/* e.b.normed = random rows in the form that a format wants. */
static void set_vectors(int format, int tokens, int columns) {
  const std::vector<float> x = random_rows(tokens, columns);
  poison(e.b.normed, (size_t)tokens * (size_t)columns);
  REQUIRE(cudaMemcpy(e.b.normed.rows, x.data(), x.size() * 4, cudaMemcpyHostToDevice));
  REQUIRE_OK(quantize_rows(e, e.b.normed, form_of(format), columns, tokens));
}

static std::vector<double> product(const double *weights, const double *x, int rows, int columns, int tokens) {
  std::vector<double> y;
  for (int t = 0; t < tokens; t++) {
    for (int r = 0; r < rows; r++) y.push_back(dot(weights + (size_t)r * (size_t)columns, x + (size_t)t * (size_t)columns, columns));
  }
  return y;
}

static void check_matvec(int format, int rows, int columns) {
  random_matrix w(format, rows, columns, 1, numbers);
  REQUIRE_OK(check_matrix(w.matrix, "check"));
  set_vectors(format, DECODE_TOKENS, columns);
  const int stride = rows + 5;
  const std::vector<double> x = activation_values(e.b.normed, format, (size_t)DECODE_TOKENS * (size_t)columns, columns);
  const std::vector<double> plain = product(w.weights.data(), x.data(), rows, columns, DECODE_TOKENS);
  const std::vector<float> bias = random_rows(1, rows);
  float *device_bias = device_copy(bias), *y = device_memory<float>((size_t)DECODE_TOKENS * (size_t)stride);
  std::vector<float> alone;
  for (int tokens = 1; suits_matvec(e, tokens); tokens++) {
    char text[160];
    std::vector<double> want(plain.begin(), plain.begin() + tokens * rows);
    snprintf(text, sizeof text, "matvec %s [%d x %d], %d tokens of %d digits", format_name(format), rows, columns, tokens, e.shape.digits);
    poison(y, (size_t)DECODE_TOKENS * (size_t)stride * 4);
    REQUIRE_OK(matmul(e, w.matrix, e.b.normed, y, stride, MATMUL_STORE, nullptr, tokens));
    const std::vector<float> stored = host_copy(y, (size_t)tokens * (size_t)stride);
    compare(text, stored, want, tokens, rows, stride, 1e-10);
    if (tokens == 1) alone = stored;
    size_t same = 0;
    while (same < (size_t)rows && stored[same] == alone[same]) same++;
    snprintf(text, sizeof text, "matvec %s [%d x %d]: token 0 of %d differs from a call with 1", format_name(format), rows, columns, tokens);
    expect(same == (size_t)rows, text, same);
    if (tokens % 3) continue;
    snprintf(text, sizeof text, "matvec %s [%d x %d], %d tokens, bias, added", format_name(format), rows, columns, tokens);
    REQUIRE_OK(matmul(e, w.matrix, e.b.normed, y, stride, MATMUL_ADD, device_bias, tokens));
    for (int i = 0; i < tokens * rows; i++) want[(size_t)i] = 2 * want[(size_t)i] + (double)bias[(size_t)(i % rows)];
    compare(text, host_copy(y, (size_t)tokens * (size_t)stride), want, tokens, rows, stride, 1e-10);
  }
  cudaFree(y), cudaFree(device_bias);
}

static double silu(double x) { return x / (1 + exp(-x)); }

static void check_gated(int format, int up_format, int rows, int columns) {
  random_matrix gate(format, rows, columns, 1, numbers), up(up_format, rows, columns, 1, numbers);
  tcu_ffn ffn = {gate.matrix, up.matrix, {}};
  /* where gate and up are computed apart, hidden has only the forms that `down` wants: rows for a float format */
  ffn.down.format = format == up_format ? FORMAT_Q8_0 : FORMAT_F32;
  for (int tokens : {1, 3, DECODE_TOKENS / e.shape.digits}) {
    set_vectors(format, tokens, columns);
    const std::vector<double> x = activation_values(e.b.normed, format, (size_t)tokens * (size_t)columns, columns);
    std::vector<double> want = product(gate.weights.data(), x.data(), rows, columns, tokens);
    const std::vector<double> ups = product(up.weights.data(), x.data(), rows, columns, tokens);
    for (size_t i = 0; i < want.size(); i++) want[i] = silu(want[i]) * ups[i];
    poison(e.b.hidden, (size_t)tokens * (size_t)rows);
    REQUIRE_OK(gated(e, ffn, e.b.normed, tokens));
    char text[160];
    snprintf(text, sizeof text, "gated %s, %s [%d x %d], %d tokens of %d digits", format_name(format), format_name(up_format), rows, columns, tokens,
             e.shape.digits);
    compare(text, host_copy(e.b.hidden.rows, want.size()), want, tokens, rows, rows, 1e-10);
    if (format == up_format) check_forms(text, e.b.hidden, FORM_Q8X32, tokens, rows);
  }
}

static void check_experts(int format, int up_format, int down_format, int hidden, int width, int tokens) {
  const int experts = 9, used = 4, pairs = tokens * used;
  random_matrix gate(format, width, hidden, experts, numbers), up(up_format, width, hidden, experts, numbers), down(down_format, hidden, width, experts, numbers);
  const tcu_ffn ffn = {gate.matrix, up.matrix, down.matrix};
  std::vector<int32_t> ids;
  std::vector<float> by;
  for (int i = 0; i < pairs; i++) ids.push_back(i % used * 2 + (int)(numbers.bits() % 2)), by.push_back(numbers.uniform());
  e.shape.experts_used = used;
  e.b.expert_ids = device_copy(ids), e.b.expert_weights = device_copy(by);
  set_vectors(format, tokens, hidden);
  poison(e.b.hidden, (size_t)pairs * (size_t)width);
  poison(e.b.routed, (size_t)tokens * (size_t)hidden * 4);
  REQUIRE_OK(matvec_experts(e, ffn, tokens));

  const std::vector<double> x = activation_values(e.b.normed, format, (size_t)tokens * (size_t)hidden, hidden);
  const std::vector<double> h = activation_values(e.b.hidden, down_format, (size_t)pairs * (size_t)width, width);
  std::vector<double> want_hidden, want((size_t)tokens * (size_t)hidden);
  const size_t matrix = (size_t)width * (size_t)hidden;
  for (int p = 0; p < pairs; p++) {
    const size_t of = (size_t)ids[(size_t)p] * matrix, t = (size_t)(p / used);
    const std::vector<double> gates = product(&gate.weights[of], &x[t * (size_t)hidden], width, hidden, 1);
    const std::vector<double> ups = product(&up.weights[of], &x[t * (size_t)hidden], width, hidden, 1);
    for (size_t i = 0; i < gates.size(); i++) want_hidden.push_back(silu(gates[i]) * ups[i]);
    const std::vector<double> out = product(&down.weights[of], &h[(size_t)p * (size_t)width], hidden, width, 1);
    for (size_t i = 0; i < out.size(); i++) want[t * (size_t)hidden + i] += (double)by[(size_t)p] * out[i];
  }
  char text[160];
  snprintf(text, sizeof text, "experts %s, %s, %s hidden %d, width %d, %d tokens of %d digits", format_name(format), format_name(up_format),
           format_name(down_format), hidden, width, tokens, e.shape.digits);
  compare(text, host_copy(e.b.routed, want.size()), want, tokens, hidden, hidden, 1e-10);
  if (format != up_format) return (void)(cudaFree(e.b.expert_ids), cudaFree(e.b.expert_weights));
  compare(strcat(text, ", inside"), host_copy(e.b.hidden.rows, want_hidden.size()), want_hidden, pairs, width, width, 1e-10);
  check_forms(text, e.b.hidden, form_of(down_format) & ~FORM_ROWS, pairs, width);
  cudaFree(e.b.expert_ids), cudaFree(e.b.expert_weights);
}

static void check_format(int format) {
  check_matvec(format, 33, 256);
  if (256 % elements_of(format) == 0 && elements_of(format) < 256) check_matvec(format, 67, 1408);
  check_matvec(format, 131, 4096);
  check_matvec(format, 50, 12288);
  check_gated(format, format, 96, 256);
  check_gated(format, format, 160, 4096);
  for (int tokens : {1, 3, 8}) check_experts(format, format, format, 256, 256, tokens);
}

static void check_all() {
  for (int columns : {256, 1408, 4096, 10944, 12288}) check_quantize(columns);
#define CHECK_FORMAT(name, ...) check_format(FORMAT_##name);
  WEIGHT_FORMATS(CHECK_FORMAT)
  check_matvec(FORMAT_Q8_0, 5000, 256);
  check_matvec(FORMAT_Q8_0, 40, 10944);
  check_matvec(FORMAT_F32, 3001, 64);
  check_gated(FORMAT_Q4_0, FORMAT_Q8_0, 96, 1408);
  check_gated(FORMAT_Q8_0, FORMAT_Q8_0, 1408, 4096);
  check_experts(FORMAT_Q4_0, FORMAT_Q4_0, FORMAT_Q4_0, 256, 64, 2);
  check_experts(FORMAT_Q4_0, FORMAT_Q4_1, FORMAT_Q8_0, 512, 352, 2);
  check_experts(FORMAT_Q4_K, FORMAT_Q4_K, FORMAT_Q6_K, 512, 256, 2);
}

int main() {
  make_engine(e, 12288, DECODE_TOKENS * 8);
  for (int digits : {2, 1}) {
    set_digits(e, digits);
    check_all();
  }
  printf("%d of %d cases wrong\n", failures, cases);
  fflush(stdout);
  if (failures) return 1;
  time_shapes(e);
  return 0;
}
