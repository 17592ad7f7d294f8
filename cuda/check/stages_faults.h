/* The second half of stages_check.cu: hand-offs against a thread that plays the pool, faults, and an engine's life. */
#pragma once

enum { HANDOFFS = 2000, CHAIN = 50 };

static void print_latencies(const char *what, std::vector<double> us) {
  std::sort(us.begin(), us.end());
  printf("  %-60s median %6.2f us, p99 %6.2f us\n", what, us[us.size() / 2], us[us.size() * 99 / 100]);
}

/* A chain of hand-offs as a decoder makes them; marks 2 i and 2 i + 1 are before and after hand-off i. */
static void queue_chain(rig &r) {
  for (int i = 0; i < CHAIN; i++) {
    const int tokens = r.e->step.token_count, forms = r.e->layers[0].shared_forms;
    NEED(norm_and_quantize(*r.e, r.e->b.normed, forms, r.e->b.x, (const float *)r.layer.ffn_norm, nullptr, r.z.hidden, tokens));
    NEED(matmul(*r.e, r.layer.router, r.e->b.normed, r.e->b.router_logits, r.z.experts, MATMUL_STORE, nullptr, tokens));
    NEED(tcu_mark(r.e, 2 * i));
    const bool fused = tokens <= DECODE_TOKENS;
    NEED(route(*r.e, r.e->layers[0], fused));
    if (!fused) NEED(publish(*r.e, r.e->layers[0]));
    NEED(tcu_await_routed(r.e, 0));
    NEED(tcu_combine(r.e, 0));
    NEED(tcu_mark(r.e, 2 * i + 1));
  }
  NEED(tcu_end_step(r.e));
}

/* The pool: answers hand-off n, the one after `first` + n, with rows of n % 16; `ahead`: all of them before they are made, rows left alone. */
static void play_pool(rig &r, int tokens, int count, int32_t first, bool ahead, std::atomic<bool> &stop) {
  for (int n = 0; n < count && !stop; n++) {
    while (!ahead && load_acquire(r.host.published) == first + n && !stop) {
    }
    if (!ahead) std::fill(r.routed, r.routed + tokens * r.z.hidden, (float)(n % 16));
    store_release(r.host.completed, first + n + 1);
  }
}

/* 2,000 hand-offs; the sum in x says that each answer was read once, and whole. Returns microseconds from mark to mark. */
static std::vector<double> run_handoffs(rig &r, int tokens, bool graphed, bool ahead) {
  tcu_graph *graph = nullptr;
  r.begin(tokens, 1);
  const size_t count = (size_t)(tokens * r.z.hidden);
  const std::vector<float> zeros(count);
  CUDA(cudaStreamSynchronize(r.e->stream));
  CUDA(cudaMemcpyAsync(r.e->b.x, zeros.data(), count * 4, cudaMemcpyHostToDevice, r.e->stream));
  if (ahead) std::fill(r.routed, r.routed + count, 1.0f);
  if (graphed) {
    NEED(tcu_capture_begin(r.e));
    queue_chain(r);
    NEED(tcu_capture_end(r.e, &graph));
  }
  std::atomic<bool> stop{false};
  const int32_t finished = load_acquire(r.host.finished), first = load_acquire(r.host.published);
  std::thread pool([&] { play_pool(r, tokens, HANDOFFS, first, ahead, stop); });
  if (ahead) pool.join();
  std::vector<double> us;
  for (int round = 0; round < HANDOFFS / CHAIN; round++) {
    if (round) r.begin(tokens, 1);
    if (graphed) NEED(tcu_graph_launch(r.e, graph));
    else queue_chain(r);
    r.await(r.host.finished, finished + round + 1, "finished");
    for (int i = 0; i < CHAIN; i++) us.push_back((double)(r.host.marks[2 * i + 1] - r.host.marks[2 * i]) / 1000);
  }
  stop = true;
  if (!ahead) pool.join();
  const auto x = r.fetch<float>(r.e->b.x, count);
  const float want = ahead ? HANDOFFS : HANDOFFS / 16 * 120;
  for (size_t i = 0; i < count; i++) {
    if (x[i] != want) fail("x[%zu] is %g after %d hand-offs, not %g", i, x[i], HANDOFFS, want);
  }
  if (load_acquire(r.host.status)) fail("status %d", load_acquire(r.host.status));
  if (graph) NEED(tcu_graph_free(r.e, graph));
  return us;
}

/* What is left when the kernels' own time (an answer that is there already) is taken off is the way to the host and back, and the pool's writing. */
static void check_handoffs(const sizes &z, int tokens) {
  rig r(z);
  printf("hand-off, %s, %d tokens: from the end of the router's product to x complete\n", z.name, tokens);
  for (const bool graphed : {false, true}) {
    const char *how = graphed ? "captured graph" : "stream";
    at_hand = std::string("hand-offs, ") + how + ", " + std::to_string(tokens) + " tokens";
    print_latencies((std::string(how) + ", answered at once by a thread").c_str(), run_handoffs(r, tokens, graphed, false));
    print_latencies((std::string(how) + ", answered before: kernels alone").c_str(), run_handoffs(r, tokens, graphed, true));
  }
  r.close();
}

/* A step of three hand-offs that nobody answers. */
static void queue_unanswered(rig &r) {
  r.begin(1, 1);
  for (int i = 0; i < 3; i++) {
    NEED(tcu_router(r.e, 0));
    NEED(tcu_publish(r.e, 0));
    NEED(tcu_await_routed(r.e, 0));
    NEED(tcu_combine(r.e, 0));
  }
  NEED(tcu_end_step(r.e));
}

static void check_faults(const sizes &z) {
  {
    at_hand = "deadline";
    rig r(z, 100);
    const double begin = seconds();
    queue_unanswered(r);
    r.await(r.host.finished, 1, "finished");
    const double took = seconds() - begin;
    if (load_acquire(r.host.status) != TCU_TIMEOUT) fail("status %d", load_acquire(r.host.status));
    if (took < 0.09 || took > 0.25) fail("took %.3f s, the deadline is 0.1 s and only the first wait may last", took);
    r.close();
  }
  {
    at_hand = "poison";
    rig r(z, 10000);
    queue_unanswered(r);
    r.await(r.host.published, 1, "published");
    int32_t idle;
    NEED(tcu_is_idle(r.e, &idle));
    if (idle) fail("idle while a wait is under way");
    const double begin = seconds();
    store_release(r.host.poison, 1);
    r.await(r.host.finished, 1, "finished");
    if (load_acquire(r.host.status) != TCU_POISONED) fail("status %d", load_acquire(r.host.status));
    printf("poison: the step ended %.1f us later\n", (seconds() - begin) * 1e6);
    r.close();
  }
  {
    at_hand = "close during a wait";
    rig r(z, 30000);
    queue_unanswered(r);
    r.await(r.host.published, 1, "published");
    const double begin = seconds();
    r.close();
    if (seconds() - begin > 2) fail("took %.1f s", seconds() - begin);
    printf("close during a wait: %.1f ms\n", (seconds() - begin) * 1e3);
  }
  at_hand = "close while capturing";
  rig r(z);
  r.begin(1, 1);
  NEED(tcu_capture_begin(r.e));
  NEED(tcu_embed(r.e));
  r.close();
}

static void check_memory(const sizes &z) {
  at_hand = "open and close";
  tcu_device info;
  uint64_t least = UINT64_MAX;
  for (int i = 0; i < 20; i++) {
    rig r(z);
    r.begin(1, 1);
    NEED(tcu_embed(r.e));
    NEED(tcu_end_step(r.e));
    r.close();
    NEED(tcu_device_info(0, &info));
    if (i == 0) least = info.free_bytes;
    if (info.free_bytes + (1 << 20) < least) {
      fail("round %d: %llu bytes free, %llu after the first", i, (unsigned long long)info.free_bytes, (unsigned long long)least);
    }
  }
  at_hand = "10 TB";
  rig r(z);
  uint64_t address = 1, bytes;
  char text[512];
  if (tcu_memory(r.e, 10000000000000ull, &address) != TCU_MEMORY || address != 0) fail("it was given, or another status");
  tcu_error_text(text, sizeof text);
  printf("%s\n", text);
  if (!strstr(text, "10000000000000") || !strstr(text, "free")) fail("the text does not tell what was asked for");
  NEED(tcu_memory(r.e, 1 << 20, &address));
  NEED(tcu_clear(r.e, address, 1 << 20));
  if (tcu_clear(r.e, address, 1ull << 40) != TCU_ARGUMENT) fail("memory of others was cleared");
  at_hand = "arguments";
  tcu_shape shape = shape_of(z, 100);
  NEED(tcu_buffer_bytes(&shape, &bytes));
  if (bytes < 1 << 16) fail("buffers of %llu bytes", (unsigned long long)bytes);
  tcu_layer wrong = r.layer;
  wrong.router.rows++;
  if (tcu_bind_layer(r.e, 0, &wrong, &r.slot) != TCU_SHAPE) fail("a router of the wrong shape was bound");
  wrong = r.layer;
  wrong.router.address += 1ull << 40;
  if (tcu_bind_layer(r.e, 0, &wrong, &r.slot) != TCU_ARGUMENT) fail("somebody else's memory was bound");
  if (tcu_attention(r.e, 0) != TCU_ARGUMENT || tcu_embed(nullptr) != TCU_ARGUMENT) fail("a stage ran that could not");
  r.close();
}
