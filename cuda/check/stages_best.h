/* Part of stages_check.cu: the best of rows of logits against a sort of all of them, and what they cost. */
#pragma once

enum { PATTERNS = 14, TIMED_HEADS = 32, TIMED_ROUNDS = 20 };

static void forget_best(rig &r) {
  std::fill(r.host.top_ids, r.host.top_ids + 4 * r.z.top, -1);
  std::fill(r.host.top_logits, r.host.top_logits + 4 * r.z.top, 321.0f);
}

/* What the engine told is what a sort gives, bit by bit, and nothing else was written. */
static void expect_best(const rig &r, const float *logits, int rows, int top) {
  const size_t vocabulary = (size_t)r.z.vocabulary;
  for (int row = 0; row < rows; row++) {
    const float *of = logits + (size_t)row * vocabulary;
    const auto key = [of](int32_t id) { return std::isfinite(of[id]) ? of[id] : INFINITY; };
    std::vector<int32_t> order(vocabulary);
    for (size_t i = 0; i < vocabulary; i++) order[i] = (int32_t)i;
    std::partial_sort(order.begin(), order.begin() + top, order.end(), [&](int32_t a, int32_t b) { return key(a) != key(b) ? key(a) > key(b) : a < b; });
    for (int i = 0; i < r.z.top; i++) {
      const int at = row * r.z.top + i, id = r.host.top_ids[at];
      const float told = r.host.top_logits[at], want = i < top ? of[order[(size_t)i]] : 321.0f;
      if (id != (i < top ? order[(size_t)i] : -1)) fail("the best %d, row %d: place %d is %d, not %d", top, row, i, id, i < top ? order[(size_t)i] : -1);
      if (memcmp(&told, &want, 4) != 0) fail("the best %d, row %d: the logit of place %d is %g, not %g", top, row, i, told, want);
    }
  }
}

/* A row of logits of some kind. */
static void fill_pattern(rig &r, float *row, int pattern) {
  const int count = r.z.vocabulary;
  for (int i = 0; i < count; i++) row[i] = r.random.normal();
  const auto some = [&](float value, int n) {
    for (int i = 0; i < n; i++) row[r.random.bits() % (uint32_t)count] = value;
  };
  for (int i = 0; i < count; i++) {
    if (pattern == 1) row[i] = 0.25f;
    if (pattern == 2) row[i] = -INFINITY;
    if (pattern == 3) row[i] = NAN;
    if (pattern == 4) row[i] = (float)i;                          /* ascending */
    if (pattern == 5) row[i] = -(float)i;                         /* descending */
    if (pattern == 6) row[i] = roundf(row[i] * 4) / 4;            /* many ties */
    if (pattern == 7) row[i] = i % 3 ? -0.0f : 0.0f;              /* zeros are equal */
    if (pattern == 8 && i % FIRST_THREADS == 37) row[i] += 1000;  /* all of one thread of each slice */
    if (pattern == 9 && i / FIRST_SLICE == count / FIRST_SLICE / 2) row[i] += 1000; /* all in one slice */
    if (pattern == 10) row[i] *= 1e-41f;                          /* too small for a normal float */
  }
  if (pattern == 11) some(NAN, 1);
  if (pattern == 12) some(-INFINITY, 3), some(INFINITY, 2), some(NAN, 2);
  if (pattern == 13) some(-FLT_MAX, 5), some(FLT_MAX, 5);
}

static void check_best(rig &r) {
  const size_t vocabulary = (size_t)r.z.vocabulary;
  std::vector<float> logits(4 * vocabulary);
  r.begin(1, 1);
  for (const int top : {1, 2, 7, 40, 64}) {
    if (top > r.z.top) continue;
    for (int pattern = 0; pattern < PATTERNS; pattern++) {
      const int rows = pattern % 2 ? 4 : 1;
      at_hand = std::string("best, ") + r.z.name + ", pattern " + std::to_string(pattern);
      for (int row = 0; row < rows; row++) fill_pattern(r, logits.data() + (size_t)row * vocabulary, (pattern + row) % PATTERNS);
      const int32_t finished = load_acquire(r.host.finished);
      forget_best(r);
      CUDA(cudaMemcpyAsync(r.e->b.logits, logits.data(), (size_t)rows * vocabulary * 4, cudaMemcpyHostToDevice, r.e->stream));
      NEED(tell_best(*r.e, rows, top));
      NEED(tcu_end_step(r.e));
      r.await(r.host.finished, finished + 1, "finished");
      expect_best(r, logits.data(), rows, top);
    }
  }
  if (tcu_head(r.e, TCU_LOGITS, r.z.top + 1) != TCU_ARGUMENT || tcu_head(r.e, TCU_LOGITS, -1) != TCU_ARGUMENT) fail("more was told than there is room for");
}

/* Microseconds of one `call` in a graph of many: the median of the rounds. */
template <typename Call> static double time_graph(rig &r, Call call) {
  tcu_graph *graph;
  cudaEvent_t begin, end;
  NEED(tcu_capture_begin(r.e));
  for (int i = 0; i < TIMED_HEADS; i++) call();
  NEED(tcu_capture_end(r.e, &graph));
  CUDA(cudaEventCreate(&begin));
  CUDA(cudaEventCreate(&end));
  std::vector<float> us;
  for (int round = 0; round < TIMED_ROUNDS; round++) {
    CUDA(cudaEventRecord(begin, r.e->stream));
    NEED(tcu_graph_launch(r.e, graph));
    CUDA(cudaEventRecord(end, r.e->stream));
    CUDA(cudaEventSynchronize(end));
    float ms;
    CUDA(cudaEventElapsedTime(&ms, begin, end));
    us.push_back(ms * 1000 / TIMED_HEADS);
  }
  CUDA(cudaEventDestroy(begin));
  CUDA(cudaEventDestroy(end));
  NEED(tcu_graph_free(r.e, graph));
  std::sort(us.begin(), us.end());
  return us[us.size() / 2];
}

/* The best alone, and the whole head: its product, with all logits to the host, or with the best of them. */
static void time_best(const sizes &z) {
  at_hand = "times of the best";
  rig r(z);
  for (const int rows : {1, 4}) {
    r.begin(16, rows);
    const std::vector<float> x = r.normals((size_t)(16 * z.hidden));
    CUDA(cudaMemcpyAsync(r.e->b.x, x.data(), x.size() * 4, cudaMemcpyHostToDevice, r.e->stream));
    CUDA(cudaStreamSynchronize(r.e->stream));
    printf("head, %s, %d rows: product %.1f us, with all logits to the host %.1f us\n", z.name, rows, time_graph(r, [&] { NEED(tcu_head(r.e, 0, 0)); }),
           time_graph(r, [&] { NEED(tcu_head(r.e, TCU_LOGITS, 0)); }));
    for (const int top : {1, 8, 40, 64}) {
      printf("  the best %2d: %.1f us, with the product %.1f us\n", top, time_graph(r, [&] { NEED(tell_best(*r.e, rows, top)); }),
             time_graph(r, [&] { NEED(tcu_head(r.e, 0, top)); }));
    }
  }
  r.close();
}
