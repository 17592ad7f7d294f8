/* A step's record on its way in, and the word that tells of its end. */
#include <math.h>
#include <string.h>
#include "engine.h"

static int check_step(const tcu_engine &e, const tcu_step &step) {
  const tcu_shape &s = e.shape;
  if (step.token_count <= 0 || step.token_count > s.ubatch) return failed(TCU_SHAPE, "tcu_begin_step: %d tokens of %d", step.token_count, s.ubatch);
  if (step.run_count <= 0 || step.run_count > s.sequences) return failed(TCU_SHAPE, "tcu_begin_step: %d runs of %d", step.run_count, s.sequences);
  if (step.output_count < 0 || step.output_count > s.outputs) return failed(TCU_SHAPE, "tcu_begin_step: %d outputs of %d", step.output_count, s.outputs);
  if (step.most_keys <= 0 || step.most_keys > (int64_t)s.blocks_per_sequence * KV_BLOCK_TOKENS) {
    return failed(TCU_SHAPE, "tcu_begin_step: %d keys in %d blocks", step.most_keys, s.blocks_per_sequence);
  }
  if (!step.token_ids || !step.positions || !step.cache_rows || !step.runs || !step.block_tables || (step.output_count > 0 && !step.outputs)) {
    return failed(TCU_ARGUMENT, "tcu_begin_step: a part of the record is missing");
  }
  if ((uint64_t)step.runs % 16 != 0) return failed(TCU_ARGUMENT, "tcu_begin_step: runs are not on 16 bytes");
  const uint64_t tokens = (uint64_t)step.token_count * 4;
  CHECK(check_registered(e, step.token_ids, tokens, "token_ids"));
  CHECK(check_registered(e, step.positions, tokens, "positions"));
  CHECK(check_registered(e, step.cache_rows, tokens, "cache_rows"));
  CHECK(check_registered(e, step.outputs, (uint64_t)step.output_count * 4, "outputs"));
  return check_registered(e, step.runs, (uint64_t)step.run_count * 16, "runs");
}

static bool is_within(int32_t value, int64_t end) { return value >= 0 && value < end; }

static int take_token(const tcu_engine &e, const tcu_step &step, int t) {
  const step_buffers &to = e.b.step;
  const tcu_shape &s = e.shape;
  to.token_ids[t] = step.token_ids[t];
  to.positions[t] = step.positions[t];
  to.cache_rows[t] = step.cache_rows[t];
  if (!is_within(to.token_ids[t], s.vocabulary) || !is_within(to.positions[t], step.most_keys) ||
      !is_within(to.cache_rows[t], (int64_t)s.kv_blocks * KV_BLOCK_TOKENS)) {
    return failed(TCU_ARGUMENT, "token %d of the step: id %d, position %d, row %d", t, to.token_ids[t], to.positions[t], to.cache_rows[t]);
  }
  const int pairs = s.rotary / 2;
  float *angles = to.angles + (size_t)t * (size_t)s.rotary;
  for (int i = 0; i < pairs; i++) {
    const double angle = to.positions[t] * e.b.frequencies[i];
    angles[i] = (float)cos(angle);
    angles[pairs + i] = (float)sin(angle);
  }
  return TCU_OK;
}

/* Run r: its tokens follow those of the run before, its block table becomes row r as far as its keys reach. */
static int take_run(const tcu_engine &e, const tcu_step &step, int r, int first) {
  const step_buffers &to = e.b.step;
  const int32_t *run = step.runs + 4 * r;
  const int end = run[0] + run[1];
  if (run[0] != first || run[1] <= 0 || end > step.token_count || run[2] < 0) return failed(TCU_ARGUMENT, "run %d of the step: [%d, %d)", r, run[0], end);
  for (int t = run[0]; t < end; t++) to.run_of_token[t] = r;
  const size_t stride = (size_t)e.shape.blocks_per_sequence, blocks = (size_t)to.positions[end - 1] / KV_BLOCK_TOKENS + 1;
  const int32_t *table = step.block_tables + (size_t)run[2] * stride;
  CHECK(check_registered(e, table, blocks * 4, "block_tables"));
  for (size_t i = 0; i < blocks; i++) {
    to.block_tables[(size_t)r * stride + i] = table[i];
    if (!is_within(table[i], e.shape.kv_blocks)) return failed(TCU_ARGUMENT, "run %d of the step: block %d", r, table[i]);
  }
  return TCU_OK;
}

static int take_step(const tcu_engine &e, const tcu_step &step) {
  for (int t = 0; t < step.token_count; t++) CHECK(take_token(e, step, t));
  int next = 0;
  for (int r = 0; r < step.run_count; r++) {
    CHECK(take_run(e, step, r, next));
    next = step.runs[4 * r] + step.runs[4 * r + 1];
  }
  if (next != step.token_count) return failed(TCU_ARGUMENT, "the step's runs end at token %d of %d", next, step.token_count);
  for (int i = 0; i < step.output_count; i++) {
    e.b.step.outputs[i] = step.outputs[i];
    if (!is_within(step.outputs[i], step.token_count)) return failed(TCU_ARGUMENT, "output %d of the step: token %d", i, step.outputs[i]);
  }
  return TCU_OK;
}

int tcu_begin_step(tcu_engine *e, const tcu_step *step) {
  CHECK(enter(e));
  if (!step || !e->attached || e->recording) return failed(TCU_ARGUMENT, "tcu_begin_step: no step, nothing attached, or while capturing");
  CHECK(check_step(*e, *step));
  e->step = *step;
  e->in_step = true;
  e->compute.queue([e, step = *step] {
    if (e->step_failure != TCU_OK || e->device_failure != TCU_OK) return;
    const int status = take_step(*e, step);
    if (status != TCU_OK) fail_step(*e, status);
  });
  return TCU_OK;
}

int tcu_end_step(tcu_engine *e) {
  CHECK(enter_step(e));
  queue_work(*e, [e] {
    if (e->device_failure == TCU_LOST || e->closing) return;
    /* released after everything that the step wrote to host memory */
    __atomic_store_n(e->host.finished, (int32_t)++e->finished, __ATOMIC_RELEASE);
  });
  e->in_step = false;
  if (e->recording) e->recording->ends_step = true;
  return TCU_OK;
}
