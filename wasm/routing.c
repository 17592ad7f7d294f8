/* route, group: which experts a token goes to, and which tokens an expert gets. */
#include "exp.h"
#include "kernels.h"

enum { MAX_USED = 64 }; /* experts per token; real models use at most 22 */
#define SMALLEST_SUM 6.103515625e-5f /* the smallest normal f16, as llama.cpp clamps the sum of weights */

/* One chosen expert: what it was chosen by, its weight before normalising, its id. */
struct choice {
  float rank, weight;
  int id;
};

/* What turns a logit into a gate; shift and total belong to softmax. */
struct gating {
  int kind;
  float shift, total;
};

/* The gates of `count` <= 4 logits. */
static v128_t gate_4(const float *logits, int count, struct gating gating) {
  float in[4] = {0};
  for (int i = 0; i < count; i++) in[i] = logits[i];
  const v128_t x = load(in);
  if (gating.kind == GATING_SIGMOID) return sigmoid_f32x4(x);
  return wasm_f32x4_div(exp_f32x4(wasm_f32x4_sub(x, wasm_f32x4_splat(gating.shift))), wasm_f32x4_splat(gating.total));
}

/* Softmax over all experts needs the largest logit and the sum of e^(logit - largest) first. */
static struct gating prepare(const float *logits, int kind, int experts) {
  struct gating gating = {kind, logits[0], 1};
  if (kind == GATING_SIGMOID) return gating;
  for (int e = 1; e < experts; e++) gating.shift = logits[e] > gating.shift ? logits[e] : gating.shift;
  float total = 0;
  for (int e = 0; e < experts; e += 4) {
    const int count = experts - e < 4 ? experts - e : 4;
    float gates[4];
    wasm_v128_store(gates, gate_4(logits + e, count, gating));
    for (int i = 0; i < count; i++) total += gates[i];
  }
  gating.total = total;
  return gating;
}

/* Keeps the best `used` seen so far in order of rank. A candidate goes behind its equals: ids come in ascending order, so ties go to the lower. */
static void offer(struct choice *best, int *count, int used, struct choice candidate) {
  if (!(candidate.rank == candidate.rank)) candidate.rank = -__builtin_inff(); /* NaN: last, but every token gets valid ids */
  if (*count == used && !(candidate.rank > best[used - 1].rank)) return;
  int at = *count < used ? (*count)++ : used - 1;
  for (; at > 0 && candidate.rank > best[at - 1].rank; at--) best[at] = best[at - 1];
  best[at] = candidate;
}

static void sort_by_id(struct choice *choices, int count) {
  for (int i = 1; i < count; i++) {
    const struct choice moved = choices[i];
    int at = i;
    for (; at > 0 && choices[at - 1].id > moved.id; at--) choices[at] = choices[at - 1];
    choices[at] = moved;
  }
}

static void route_token(int32_t *ids, float *weights, const float *logits, const float *bias, int kind, int normalize, float scale, int experts,
                        int used) {
  const struct gating gating = prepare(logits, kind, experts);
  struct choice best[MAX_USED];
  int chosen = 0;
  for (int e = 0; e < experts; e += 4) {
    const int count = experts - e < 4 ? experts - e : 4;
    float gates[4];
    wasm_v128_store(gates, gate_4(logits + e, count, gating));
    for (int i = 0; i < count; i++) offer(best, &chosen, used, (struct choice){gates[i] + (bias ? bias[e + i] : 0), gates[i], e + i});
  }
  sort_by_id(best, used);
  float sum = 0;
  for (int i = 0; i < used; i++) sum += best[i].weight;
  if (sum < SMALLEST_SUM) sum = SMALLEST_SUM; /* false for NaN, which stays */
  for (int i = 0; i < used; i++) {
    ids[i] = best[i].id;
    weights[i] = (normalize ? best[i].weight / sum : best[i].weight) * (scale == 0 ? 1 : scale);
  }
}

int route(int32_t *ids, float *weights, const float *logits, const float *bias, int gating, int normalize, float scale, int experts, int used,
          int token_begin, int token_end) {
  if (gating != GATING_SOFTMAX && gating != GATING_SIGMOID) return STATUS_FORMAT;
  if (used <= 0 || used > experts || used > MAX_USED || token_begin < 0 || token_begin > token_end) return STATUS_SHAPE;
  for (int t = token_begin; t < token_end; t++) {
    const size_t at = (size_t)t * (size_t)used;
    route_token(ids + at, weights + at, logits + (size_t)t * (size_t)experts, bias, gating, normalize, scale, experts, used);
  }
  return STATUS_OK;
}

int group(int32_t *offsets, int32_t *pair_token, float *pair_weight, const int32_t *ids, const float *weights, int experts, int used, int tokens) {
  if (experts <= 0 || used <= 0 || tokens < 0) return STATUS_SHAPE;
  const int pairs = tokens * used;
  /* Count into offsets[e], turn counts into starts, use the starts as cursors, then shift by one: cursors end where the next expert starts. */
  for (int e = 0; e <= experts; e++) offsets[e] = 0;
  for (int p = 0; p < pairs; p++) {
    if (ids[p] < 0 || ids[p] >= experts) return STATUS_SHAPE;
    offsets[ids[p]]++;
  }
  for (int e = 0, start = 0; e < experts; e++) {
    const int count = offsets[e];
    offsets[e] = start;
    start += count;
  }
  for (int t = 0; t < tokens; t++) {
    for (int i = 0; i < used; i++) {
      const int at = offsets[ids[t * used + i]]++;
      pair_token[at] = t;
      pair_weight[at] = weights[t * used + i];
    }
  }
  for (int e = experts; e > 0; e--) offsets[e] = offsets[e - 1];
  offsets[0] = 0;
  return STATUS_OK;
}
