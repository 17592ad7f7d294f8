/*
 * Checks what is around the products: step record, embedding, routing, slots, hand-off, combine, head, faults, an engine's life; and times the
 * hand-off and the head's best. Build and run:
 *   node cuda/build.mjs --arch sm_90 --check stages_check && cuda/dist/stages_check
 * Exit 0 when all is right; the first failure says where.
 */
#include <float.h>
#include <algorithm>
#include <atomic>
#include <cmath>
#include <thread>
#include "routing_reference.h"
#include "stages_rig.h"

static const sizes TINY = {"tiny", 256, 8, 2, 1024, 64, GATING_SOFTMAX, FORMAT_Q4_0, FORMAT_F32, 1};
static const sizes FINE = {"GLM's row in q16", 4096, 128, 8, 1024, 8, GATING_SIGMOID, FORMAT_Q4_K, FORMAT_Q4_K, 2};
static const sizes NARROW = {"hidden 96", 96, 5, 3, 1000, 1, GATING_SIGMOID, FORMAT_F16, FORMAT_F32, 1};
static const sizes GLM = {"GLM's row", 4096, 128, 8, 1024, 8, GATING_SIGMOID, FORMAT_Q4_K, FORMAT_Q8_0, 1};
static const sizes NONE_TOLD = {"no best tokens", 256, 8, 2, 1000, 0, GATING_SOFTMAX, FORMAT_Q4_0, FORMAT_Q8_0, 2};
static const sizes WIDE = {"GLM's vocabulary", 256, 160, 8, 151552, 64, GATING_SOFTMAX, FORMAT_Q6_K, FORMAT_Q8_0, 1};
static const sizes FEW = {"7 tokens", 96, 5, 3, 7, 7, GATING_SIGMOID, FORMAT_Q8_0, FORMAT_F16, 2};
static const sizes HUGE = {"300,000 tokens", 96, 5, 3, 300000, 64, GATING_SIGMOID, FORMAT_Q8_0, FORMAT_Q8_0, 1};

static void check_begin(rig &r, int tokens) {
  const auto angles = r.fetch<float>(r.e->b.step.angles, (size_t)tokens * 32);
  const auto tables = r.fetch<int32_t>(r.e->b.step.block_tables, 2), runs = r.fetch<int32_t>(r.e->b.step.runs, 4);
  const auto owners = r.fetch<int32_t>(r.e->b.step.run_of_token, (size_t)tokens), ids = r.fetch<int32_t>(r.e->b.step.token_ids, (size_t)tokens);
  if (tables[0] != 116 || runs[0] != 0 || runs[1] != tokens || runs[2] != 0) {
    fail("run or block table: table %d, run %d %d %d", tables[0], runs[0], runs[1], runs[2]);
  }
  for (int t = 0; t < tokens; t++) {
    const double frequencies[16] = {1, 0.5, 0.25, 0.125};
    if (owners[t] != 0 || ids[t] != r.step.token_ids[t]) fail("token %d: run %d, id %d", t, owners[t], ids[t]);
    for (int i = 0; i < 16; i++) {
      const double angle = (20 + t) * frequencies[i];
      if (fabs(angles[t * 32 + i] - cos(angle)) > 1e-7 || fabs(angles[t * 32 + 16 + i] - sin(angle)) > 1e-7) fail("angle %d of token %d", i, t);
    }
  }
}

static void check_embed(rig &r, int tokens) {
  NEED(tcu_embed(r.e));
  const auto x = r.fetch<float>(r.e->b.x, (size_t)(tokens * r.z.hidden));
  const auto compare = [&](auto w) {
    typedef decltype(w) W;
    const size_t row = (size_t)(r.z.hidden / W::ELEMENTS * W::BYTES);
    for (int i = 0; i < tokens * r.z.hidden; i++) {
      const int t = i / r.z.hidden, c = i % r.z.hidden;
      const uint8_t *block = r.embedding.data() + (size_t)r.step.token_ids[t] * row + (size_t)(c / W::ELEMENTS * W::BYTES);
      const double want = weight_reference<W::ID>(block, c % W::ELEMENTS);
      if (fabs(x[(size_t)i] - want) > 1e-5 * (fabs(want) + 1e-2)) fail("token %d column %d: %g, not %g", t, c, x[(size_t)i], want);
    }
    return 0;
  };
  with_format(r.z.embedding_format, compare, [] { return 0; });
}

static void same_bytes(const uint8_t *have, const std::vector<uint8_t> &want, const char *what, size_t record) {
  for (size_t i = 0; i < want.size(); i++) {
    if (have[i] != want[i]) fail("%s: record %zu byte %zu is %d, not %d", what, i / record, i % record, have[i], want[i]);
  }
}

/* Ids and weights in the slot, against the device's own logits. */
static void check_choice(rig &r, int tokens, const char *what) {
  const tcu_shape &s = r.e->shape;
  const auto logits = r.fetch<float>(r.e->b.router_logits, (size_t)(tokens * s.experts));
  const auto device_ids = r.fetch<int32_t>(r.e->b.expert_ids, (size_t)(tokens * s.experts_used));
  int32_t ids[MOST_USED];
  float weights[MOST_USED];
  for (int t = 0; t < tokens; t++) {
    const float *bias = r.layer.selection_bias ? r.bias.data() : nullptr;
    route_reference(ids, weights, logits.data() + t * s.experts, bias, s.gating, s.normalize_weights, s.weights_scale, s.experts, s.experts_used);
    for (int i = 0; i < s.experts_used; i++) {
      const int at = t * s.experts_used + i;
      const float weight = r.slot.expert_weights[at];
      if (r.slot.expert_ids[at] != ids[i] || device_ids[(size_t)at] != ids[i]) {
        fail("%s: token %d choice %d: expert %d, not %d", what, t, i, r.slot.expert_ids[at], ids[i]);
      }
      if (isnan(weight) != isnan(weights[i]) || fabs(weight - weights[i]) > 1e-5 * fabs(weights[i]) + 1e-30) {
        fail("%s: token %d weight %d: %g, not %g", what, t, i, weight, weights[i]);
      }
    }
  }
}

static void check_router(rig &r, int tokens) {
  const size_t hidden = (size_t)r.z.hidden;
  std::vector<float> x = r.normals((size_t)tokens * hidden);
  for (size_t i = 0; i < hidden / 2; i++) x[i] *= 1e-3f * (float)(i % 40); /* small beside large, and zeros */
  for (size_t i = 0; i < 32; i++) x[i] = 0;
  CUDA(cudaMemcpyAsync(r.e->b.x, x.data(), x.size() * 4, cudaMemcpyHostToDevice, r.e->stream));
  const int32_t before = load_acquire(r.host.published);
  NEED(tcu_router(r.e, 0));
  NEED(tcu_publish(r.e, 0));
  r.await(r.host.published, before + 1, "published");
  if (r.host.published[1] != 7 || r.host.published[2] != tokens) fail("entry %d, tokens %d", r.host.published[1], r.host.published[2]);
  CUDA(cudaStreamSynchronize(r.e->stream));
  if (load_acquire(r.host.published) != before + 1) fail("published %d times", load_acquire(r.host.published) - before);
  check_choice(r, tokens, "router");
  const auto norm = r.fetch<float>((void *)r.layer.ffn_norm, hidden);
  const size_t digits = (size_t)r.z.digits;
  std::vector<uint8_t> small((size_t)tokens * digits * hidden / 32 * 40), large((size_t)tokens * digits * (hidden / 256) * 324);
  for (int t = 0; t < tokens; t++) {
    const float *row = x.data() + (size_t)t * hidden, *normed = r.slot.normed + (size_t)t * hidden;
    double squares = 0;
    for (size_t i = 0; i < hidden; i++) squares += (double)row[i] * row[i];
    const double factor = 1 / sqrt(squares / (double)hidden + (double)r.e->shape.epsilon);
    for (size_t i = 0; i < hidden; i++) {
      if (fabs(normed[i] - row[i] * factor * norm[i]) > 2e-6 * fabs(row[i] * factor * norm[i])) fail("normed: token %d column %zu", t, i);
    }
    std::vector<float> rest(normed, normed + hidden), rest_256 = rest;
    for (size_t record = (size_t)t * digits; record < ((size_t)t + 1) * digits; record++) {
      q8x32_reference(small.data() + record * hidden / 32 * 40, rest.data(), (int)hidden);
      if (r.slot.q8x256) q8x256_reference(large.data() + record * (hidden / 256) * 324, rest_256.data(), (int)hidden);
    }
  }
  same_bytes(r.slot.q8x32, small, "q8x32", 40);
  if (r.slot.q8x256) same_bytes(r.slot.q8x256, large, "q8x256", 324);
}

/* Ties, NaN and infinities among the logits, both gatings, weights normalised or not. */
static void check_gating(rig &r) {
  const int experts = r.z.experts;
  const tcu_shape kept = r.e->shape;
  for (int variant = 0; variant < 8; variant++) {
    std::vector<float> logits((size_t)experts, 0.25f);
    if (variant % 4 == 1) logits = r.normals((size_t)experts), logits[3] = NAN;
    if (variant % 4 == 2) logits = r.normals((size_t)experts), logits[0] = -INFINITY, logits[1] = -200;
    if (variant % 4 == 3) std::fill(logits.begin(), logits.end(), -100.0f);
    r.e->shape.gating = variant < 4 ? GATING_SOFTMAX : GATING_SIGMOID;
    r.e->shape.normalize_weights = variant % 2;
    const layer_binding binding = r.e->layers[0];
    CUDA(cudaMemcpyAsync(r.e->b.router_logits, logits.data(), logits.size() * 4, cudaMemcpyHostToDevice, r.e->stream));
    NEED(route(*r.e, binding, false));
    CUDA(cudaStreamSynchronize(r.e->stream));
    check_choice(r, 1, ("gating variant " + std::to_string(variant)).c_str());
  }
  r.e->shape = kept;
}

static void check_combine(rig &r, int tokens) {
  const size_t count = (size_t)(tokens * r.z.hidden);
  const auto a = r.normals(count), b = r.normals(count), c = r.normals(count);
  CUDA(cudaMemcpyAsync(r.e->b.x, a.data(), count * 4, cudaMemcpyHostToDevice, r.e->stream));
  CUDA(cudaMemcpyAsync(r.e->b.shared, b.data(), count * 4, cudaMemcpyHostToDevice, r.e->stream));
  memcpy(r.routed, c.data(), count * 4);
  NEED(combine(*r.e, r.e->layers[0].slot.routed, r.e->b.shared));
  NEED(tcu_combine(r.e, 0)); /* without shared experts */
  const auto x = r.fetch<float>(r.e->b.x, count);
  for (size_t i = 0; i < count; i++) {
    if (x[i] != a[i] + (c[i] + b[i]) + c[i]) fail("combine: element %zu", i);
  }
}

/* A hold: the router tells nobody, tcu_publish does. */
static void check_hold(rig &r) {
  tcu_slot held = r.slot;
  held.holds = 1;
  NEED(tcu_bind_layer(r.e, 0, &r.layer, &held));
  const int32_t before = load_acquire(r.host.published);
  NEED(tcu_router(r.e, 0));
  CUDA(cudaStreamSynchronize(r.e->stream));
  if (load_acquire(r.host.published) != before) fail("the router published a slot that is held");
  NEED(tcu_publish(r.e, 0));
  r.await(r.host.published, before + 1, "published");
  NEED(tcu_bind_layer(r.e, 0, &r.layer, &r.slot));
}

/* Rows to the host at the end of a part of the step, and others back at the beginning of the next; in a graph as well. */
static void check_rows(rig &r, int tokens, bool recorded) {
  const size_t count = (size_t)(tokens * r.z.hidden), pairs = (size_t)(tokens * r.z.used);
  const int32_t finished = load_acquire(r.host.finished);
  const auto x = r.normals(count), changed = r.normals(count);
  CUDA(cudaMemcpyAsync(r.e->b.x, x.data(), count * 4, cudaMemcpyHostToDevice, r.e->stream));
  const auto part = [&r, recorded](const auto &queue) {
    NEED(tcu_begin_step(r.e, &r.step));
    if (recorded) NEED(tcu_capture_begin(r.e));
    queue();
    NEED(tcu_end_step(r.e));
    tcu_graph *graph = nullptr;
    if (recorded) NEED(tcu_capture_end(r.e, &graph));
    if (recorded) NEED(tcu_graph_launch(r.e, graph));
  };
  part([&r] { NEED(tcu_read_rows(r.e, TCU_X, r.rows)); });
  r.await(r.host.finished, finished + 1, "finished");
  if (memcmp(r.rows, x.data(), count * 4) != 0) fail("x in host memory is not the device's");
  memcpy(r.rows, changed.data(), count * 4);
  part([&r] { NEED(tcu_write_rows(r.e, TCU_X, r.rows)); });
  r.await(r.host.finished, finished + 2, "finished");
  if (r.fetch<float>(r.e->b.x, count) != changed) fail("x on the device is not the host's");
  part([&r] { NEED(tcu_read_rows(r.e, TCU_EXPERT_IDS, r.rows)); });
  r.await(r.host.finished, finished + 3, "finished");
  if (memcmp(r.rows, r.fetch<int32_t>(r.e->b.expert_ids, pairs).data(), pairs * 4) != 0) fail("expert ids in host memory are not the device's");
  if (tcu_write_rows(r.e, TCU_EXPERT_IDS, r.rows) != TCU_ARGUMENT) fail("expert ids were written");
  if (tcu_read_rows(r.e, TCU_ROUTED, r.rows) != TCU_ARGUMENT) fail("rows were read that are not there");
  if (tcu_read_rows(r.e, TCU_X, r.memory + r.bytes - 16) != TCU_ARGUMENT) fail("rows were read to where there is no room");
}

/* The rows that the head multiplied. */
static void check_hidden(rig &r, int rows) {
  const size_t hidden = (size_t)r.z.hidden;
  const auto x = r.fetch<float>(r.e->b.x, (size_t)r.step.token_count * hidden), norm = r.fetch<float>((void *)r.model.output_norm, hidden);
  for (int i = 0; i < rows; i++) {
    const float *row = x.data() + (size_t)r.step.outputs[i] * hidden, *normed = r.host.hidden + (size_t)i * hidden;
    double squares = 0;
    for (size_t c = 0; c < hidden; c++) squares += (double)row[c] * row[c];
    const double factor = 1 / sqrt(squares / (double)hidden + (double)r.e->shape.epsilon);
    for (size_t c = 0; c < hidden; c++) {
      if (fabs(normed[c] - row[c] * factor * norm[c]) > 2e-6 * fabs(row[c] * factor * norm[c])) fail("hidden: output %d column %zu", i, c);
    }
  }
}

#include "stages_best.h"

static void check_head(rig &r, int rows, int results, int top) {
  const size_t vocabulary = (size_t)r.z.vocabulary;
  const int32_t finished = load_acquire(r.host.finished);
  const int want_logits = results & TCU_LOGITS;
  std::fill(r.host.logits, r.host.logits + 4 * vocabulary, 123.0f);
  std::fill(r.host.hidden, r.host.hidden + 4 * (size_t)r.z.hidden, 123.0f);
  forget_best(r);
  NEED(tcu_head(r.e, results, top));
  NEED(tcu_end_step(r.e));
  r.await(r.host.finished, finished + 1, "finished");
  if (results & TCU_HIDDEN) check_hidden(r, rows);
  else if (r.host.hidden[0] != 123.0f) fail("hidden rows were written unasked");
  auto logits = r.fetch<float>(r.e->b.logits, (size_t)rows * vocabulary);
  if (want_logits && top == 0) {
    /* they went straight to the host: the same product once more, to the device */
    NEED(matmul(*r.e, r.model.head, r.e->b.normed, r.e->b.logits, r.z.vocabulary, MATMUL_STORE, nullptr, rows));
    logits = r.fetch<float>(r.e->b.logits, logits.size());
  }
  if (want_logits && memcmp(logits.data(), r.host.logits, logits.size() * 4) != 0) fail("logits in host memory are not the device's");
  if (!want_logits && r.host.logits[0] != 123.0f) fail("logits were written unasked");
  for (int row = 0; row < rows && vocabulary > 900; row++) {
    const float *of = logits.data() + (size_t)row * vocabulary;
    if (of[3] != of[900] || of[3] != of[77]) fail("equal rows of the head gave different logits");
  }
  expect_best(r, logits.data(), rows, top);
}

static void check_stages(const sizes &z) {
  at_hand = std::string("open, ") + z.name;
  rig r(z);
  for (int tokens : {1, 5, 16}) {
    const std::string with = std::string(", ") + z.name + ", " + std::to_string(tokens) + " tokens";
    const int outputs = tokens == 1 ? 1 : 4;
    at_hand = "begin" + with, r.begin(tokens, outputs), check_begin(r, tokens);
    at_hand = "embed" + with, check_embed(r, tokens);
    at_hand = "router" + with, check_router(r, tokens);
    at_hand = "gating" + with, check_gating(r);
    at_hand = "hold" + with, check_hold(r);
    at_hand = "rows" + with, check_rows(r, tokens, false), check_rows(r, tokens, true);
    at_hand = "head" + with, check_head(r, outputs, tokens == 5 ? 0 : tokens == 1 ? TCU_LOGITS : TCU_LOGITS | TCU_HIDDEN, r.z.top);
    for (const int top : {0, 1}) {
      if (top <= r.z.top) at_hand = "head, the best " + std::to_string(top) + with, check_head(r, outputs, top == 0 ? TCU_LOGITS : TCU_HIDDEN, top);
    }
    at_hand = "combine" + with, check_combine(r, tokens);
  }
  check_best(r);
  r.close();
  printf("stages, %s: right\n", z.name);
}

#include "stages_faults.h"

int main() {
  setvbuf(stdout, nullptr, _IOLBF, 0);
  tcu_device device;
  NEED(tcu_device_info(0, &device));
  printf("%s, compute capability %d.%d, driver %d\n", device.name, device.major, device.minor, device.driver);
  const double begin = seconds();
  for (const sizes &z : {TINY, FINE, NARROW, GLM, NONE_TOLD, WIDE, FEW, HUGE}) check_stages(z);
  time_best(WIDE);
  for (int tokens : {1, 4, 16}) check_handoffs(GLM, tokens);
  check_faults(TINY);
  check_memory(TINY);
  printf("all right, %.1f s\n", seconds() - begin);
  return 0;
}
