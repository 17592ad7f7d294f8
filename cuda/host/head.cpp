/* The step's beginning and end: rows of the embedding, and logits with the best of each row and what they were made of. */
#include <math.h>
#include <string.h>
#include <algorithm>
#include "engine.h"

int tcu_embed(tcu_engine *e) {
  CHECK(enter_step(e));
  if (!e->has_model || !has_matrix(e->model.embedding)) return failed(TCU_ARGUMENT, "tcu_embed: there is no embedding here");
  queue_stage(*e, "embed", [e, embedding = e->model.embedding, tokens = e->step.token_count] {
    for (int t = 0; t < tokens; t++) decode_row(e->b.x + (size_t)t * (size_t)e->shape.hidden, embedding, e->b.step.token_ids[t]);
    return TCU_OK;
  });
  return TCU_OK;
}

/* ids: i32[top], values: f32[top] of the highest logits, best first, ties to the lower id; what is not finite before all else. */
static void find_best(int32_t *ids, float *values, const float *logits, int vocabulary, int top) {
  std::vector<int32_t> order((size_t)vocabulary);
  for (int i = 0; i < vocabulary; i++) order[(size_t)i] = i;
  const auto rank = [logits](int32_t id) { return isfinite(logits[id]) ? logits[id] : INFINITY; };
  std::partial_sort(order.begin(), order.begin() + top, order.end(), [&](int32_t a, int32_t b) { return rank(a) != rank(b) ? rank(a) > rank(b) : a < b; });
  for (int i = 0; i < top; i++) {
    ids[i] = order[(size_t)i];
    values[i] = logits[ids[i]];
  }
}

static int run_head(const tcu_engine &e, const tcu_model &model, int outputs, int results, int top) {
  const tcu_shape &s = e.shape;
  for (int i = 0; i < outputs; i++) {
    const float *x = e.b.x + (size_t)e.b.step.outputs[i] * (size_t)s.hidden;
    norm_row(e.b.normed.rows + (size_t)i * (size_t)s.hidden, x, (const float *)model.output_norm, s.hidden, s.epsilon);
  }
  make_forms(e.b.normed, form_of(model.head.format), s.hidden, outputs);
  matmul(e.b.logits, s.vocabulary, MATMUL_STORE, model.head, 0, e.b.normed, nullptr, nullptr, outputs);
  for (int i = 0; i < (top > 0 ? outputs : 0); i++) {
    const float *logits = e.b.logits + (size_t)i * (size_t)s.vocabulary;
    find_best(e.host.top_ids + (size_t)i * (size_t)s.top, e.host.top_logits + (size_t)i * (size_t)s.top, logits, s.vocabulary, top);
  }
  if (results & TCU_HIDDEN) memcpy(e.host.hidden, e.b.normed.rows, (size_t)outputs * (size_t)s.hidden * sizeof(float));
  if (results & TCU_LOGITS) memcpy(e.host.logits, e.b.logits, (size_t)outputs * (size_t)s.vocabulary * sizeof(float));
  return TCU_OK;
}

int tcu_head(tcu_engine *e, int32_t results, int32_t top) {
  CHECK(enter_step(e));
  if (!e->has_model || !has_matrix(e->model.head)) return failed(TCU_ARGUMENT, "tcu_head: there is no head here");
  if ((results & TCU_HIDDEN) && !e->host.hidden) return failed(TCU_ARGUMENT, "tcu_head: nowhere to put the hidden rows");
  if (top < 0 || top > e->shape.top) return failed(TCU_ARGUMENT, "tcu_head: the best %d, the engine has room for %d", top, e->shape.top);
  queue_stage(*e, "head", [e, model = e->model, outputs = e->step.output_count, results, top] { return run_head(*e, model, outputs, results, top); });
  return TCU_OK;
}
