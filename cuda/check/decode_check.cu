/*
 * A decode step at GLM-4.5-Air's shape with random weights, as src/cuda/run-step.ts queues it: checks that a captured graph, whose kernels begin
 * before those ahead have ended, gives bit for bit what the same stages give one at a time, and times every stage. A kernel that began early does
 * its fetching in the time of the stage ahead. Build and run:
 *   node cuda/build.mjs --arch sm_90 --check decode_check && cuda/dist/decode_check [layers]
 * Exit 0 when all is right.
 */
#include <algorithm>
#include <atomic>
#include <thread>
#include "decode_rig.h"

enum { REPLAYS = 40 };

/* The pool: answers every hand-off with rows that depend on the layer, after a while in which the device runs out of work, as the pool makes it. */
static void play_pool(decode_rig &r, std::atomic<bool> &stop) {
  for (int32_t done = 0; !stop;) {
    if (load_acquire(r.host.published) == done) continue;
    const int layer = r.host.published[1];
    for (const double until = seconds() + 50e-6; seconds() < until;) {
    }
    for (int i = 0; i < HIDDEN; i++) r.routed[layer][i] = 0.01f * (float)((i * 7 + layer * 13) % 31 - 15);
    store_release(r.host.completed, ++done);
  }
}

/* The stages of a step; `each` is called with a name after every one. */
template <typename Each> static void queue_stages(decode_rig &r, Each each) {
  const auto stage = [&](const char *name, int status) { need(status, name), each(name); };
  stage("embed", tcu_embed(r.e));
  for (int layer = 0; layer < r.layers; layer++) {
    stage("attention", tcu_attention(r.e, layer));
    if (layer == 0) {
      stage("denseFfn", tcu_dense_ffn(r.e, layer));
      continue;
    }
    stage("router", tcu_router(r.e, layer));
    if (r.hybrid) stage("publish", tcu_publish(r.e, layer));
    stage("sharedExperts", tcu_shared_experts(r.e, layer));
    if (r.hybrid) stage("awaitRouted", tcu_await_routed(r.e, layer));
    else stage("routedExperts", tcu_routed_experts(r.e, layer));
    stage("combine", tcu_combine(r.e, layer));
  }
  stage("head", tcu_head(r.e, TCU_LOGITS, 0));
}

static std::vector<float> logits_of(decode_rig &r) {
  std::vector<float> logits(r.host.logits, r.host.logits + (size_t)r.tokens * VOCABULARY);
  std::fill(r.host.logits, r.host.logits + logits.size(), NAN);
  return logits;
}

/* One stage at a time, each on its own. */
static std::vector<float> run_apart(decode_rig &r) {
  const bool early = r.e->starts_early;
  r.e->starts_early = false;
  r.begin();
  queue_stages(r, [&](const char *name) {
    if (strcmp(name, "sharedExperts") && strcmp(name, "publish") && strcmp(name, "router")) CUDA(cudaStreamSynchronize(r.e->stream));
    r.e->normed_layer = -1;
  });
  r.end();
  r.e->starts_early = early;
  return logits_of(r);
}

static void same(const std::vector<float> &have, const std::vector<float> &want, const char *what) {
  for (size_t i = 0; i < want.size(); i++) {
    if (!(want[i] == want[i]) || memcmp(&have[i], &want[i], 4)) fail("%s: logit %zu is %g, not %g", what, i, have[i], want[i]);
  }
}

static void time_stages(decode_rig &r, const std::vector<float> &want, bool early) {
  const bool kept = r.e->starts_early;
  r.e->starts_early = early && kept;
  std::vector<std::string> names;
  tcu_graph *graph = nullptr;
  r.begin();
  NEED(tcu_capture_begin(r.e));
  NEED(tcu_mark(r.e, 0));
  queue_stages(r, [&](const char *name) {
    names.push_back(name);
    NEED(tcu_mark(r.e, (int)names.size()));
  });
  NEED(tcu_end_step(r.e));
  NEED(tcu_capture_end(r.e, &graph));
  std::vector<std::string> order;
  std::vector<std::vector<double>> us;
  for (int round = 0; round < REPLAYS; round++) {
    r.begin();
    NEED(tcu_graph_launch(r.e, graph));
    r.wait();
    for (size_t i = 0; i < names.size(); i++) {
      size_t at = (size_t)(std::find(order.begin(), order.end(), names[i]) - order.begin());
      if (at == order.size()) order.push_back(names[i]), us.emplace_back();
      us[at].push_back((double)(r.host.marks[i + 1] - r.host.marks[i]) / 1000);
    }
  }
  r.e->starts_early = kept;
  same(logits_of(r), want, "graph with marks");
  printf("  kernels begin %s\n", early ? "early" : "in turn");
  for (size_t i = 0; i < order.size(); i++) {
    std::sort(us[i].begin(), us[i].end());
    double sum = 0;
    for (const double each : us[i]) sum += each;
    const double median = us[i][us[i].size() / 2], p95 = us[i][us[i].size() * 95 / 100];
    printf("  %-14s median %7.2f us, p95 %7.2f us, in all %8.1f us\n", order[i].c_str(), median, p95, sum / REPLAYS);
  }
  NEED(tcu_graph_free(r.e, graph));
}

static void time_step(decode_rig &r, const std::vector<float> &want, bool early) {
  const bool kept = r.e->starts_early;
  r.e->starts_early = early && kept;
  tcu_graph *graph = nullptr;
  r.begin();
  NEED(tcu_capture_begin(r.e));
  queue_stages(r, [](const char *) {});
  NEED(tcu_end_step(r.e));
  NEED(tcu_capture_end(r.e, &graph));
  std::vector<double> us;
  for (int round = 0; round < REPLAYS; round++) {
    r.begin();
    CUDA(cudaStreamSynchronize(r.e->stream));
    const double begin = seconds();
    NEED(tcu_graph_launch(r.e, graph));
    r.wait();
    us.push_back((seconds() - begin) * 1e6);
    same(logits_of(r), want, "graph");
  }
  std::sort(us.begin(), us.end());
  printf("  whole step, kernels begin %s: median %.1f us, p95 %.1f us\n", early ? "early" : "in turn", us[REPLAYS / 2], us[REPLAYS * 95 / 100]);
  NEED(tcu_graph_free(r.e, graph));
  r.e->starts_early = kept;
}

static void check_decode(bool hybrid, int layers, int tokens, int keys) {
  at_hand = std::string(hybrid ? "hybrid" : "gpu") + ", " + std::to_string(tokens) + " tokens, " + std::to_string(keys) + " keys";
  printf("%s, %d layers\n", at_hand.c_str(), layers);
  decode_rig r(hybrid, layers, tokens, keys);
  std::atomic<bool> stop{false};
  std::thread pool;
  if (hybrid) pool = std::thread([&] { play_pool(r, stop); });
  const std::vector<float> want = run_apart(r);
  time_step(r, want, false);
  time_step(r, want, true);
  time_stages(r, want, false);
  time_stages(r, want, true);
  stop = true;
  if (hybrid) pool.join();
  r.close();
}

int main(int count, char **arguments) {
  setvbuf(stdout, nullptr, _IOLBF, 0);
  const int layers = count > 1 ? atoi(arguments[1]) : 12;
  check_decode(false, layers, 1, 300);
  check_decode(true, layers, 1, 300);
  check_decode(false, 3, 1, 8000);
  check_decode(false, 3, 4, 300);
  check_decode(true, 3, 8, 40);
  printf("all right\n");
  return 0;
}
