/* How stages reach the engine's thread, at once or as a recording, and how their failures come back. */
#include <algorithm>
#include <chrono>
#include <utility>
#include "engine.h"

int enter(tcu_engine *e) {
  if (!e) return failed(TCU_ARGUMENT, "no engine");
  const int status = e->device_failure;
  if (status == TCU_OK) return TCU_OK;
  const std::lock_guard<std::mutex> lock(e->text_mutex);
  return failed(status, "%s", e->failure_text.c_str());
}

int enter_step(tcu_engine *e) {
  CHECK(enter(e));
  return e->in_step ? TCU_OK : failed(TCU_ARGUMENT, "no step was begun");
}

int enter_layer(tcu_engine *e, int layer) {
  CHECK(enter_step(e));
  if (layer < 0 || layer >= e->shape.layers || !e->layers[(size_t)layer].bound) return failed(TCU_ARGUMENT, "layer %d is not bound", layer);
  return TCU_OK;
}

void queue_work(tcu_engine &e, std::function<void()> work) {
  if (e.recording) e.recording->work.push_back(std::move(work));
  else e.compute.queue(std::move(work));
}

static void remember(tcu_engine &e, std::string text) {
  const std::lock_guard<std::mutex> lock(e.text_mutex);
  e.failure_text = std::move(text);
}

void fail_step(tcu_engine &e, int status) {
  remember(e, last_text());
  e.step_failure = status;
  __atomic_store_n(e.host.status, status, __ATOMIC_RELEASE);
}

/* Faults that are met by a stage: true when it must not run. */
static bool meets_fault(tcu_engine &e, const char *name) {
  if (fault_hits(FAULT_STAGE)) {
    fail_step(e, failed(TCU_DEVICE, "%s: a fault was asked for", name));
    e.device_failure = TCU_DEVICE;
    return true;
  }
  if (fault_hits(FAULT_LOST)) {
    remember(e, std::string(name) + ": the device was lost");
    e.device_failure = TCU_LOST;
    return true;
  }
  if (!fault_hits(FAULT_HANG)) return false;
  while (!e.closing) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return true;
}

void queue_stage(tcu_engine &e, const char *name, std::function<int()> stage) {
  queue_work(e, [&e, name, stage = std::move(stage)] {
    if (e.closing || e.step_failure != TCU_OK || e.device_failure != TCU_OK || meets_fault(e, name)) return;
    const int status = stage();
    if (status != TCU_OK) fail_step(e, status);
  });
}

int tcu_capture_begin(tcu_engine *e) {
  CHECK(enter_step(e));
  if (e->recording) return failed(TCU_ARGUMENT, "tcu_capture_begin: already capturing");
  e->recording = std::make_unique<tcu_graph>(tcu_graph{{}, e->step, false});
  return TCU_OK;
}

int tcu_capture_end(tcu_engine *e, tcu_graph **graph) {
  CHECK(enter(e));
  if (!e->recording) return failed(TCU_ARGUMENT, "tcu_capture_end: not capturing");
  std::shared_ptr<tcu_graph> made = std::move(e->recording);
  e->in_step = true; /* what was recorded has not run */
  if (!graph) return failed(TCU_ARGUMENT, "tcu_capture_end: nowhere to put the graph");
  *graph = made.get();
  e->graphs.push_back(std::move(made));
  return TCU_OK;
}

static auto find_graph(tcu_engine &e, const tcu_graph *graph) {
  return std::find_if(e.graphs.begin(), e.graphs.end(), [&](const std::shared_ptr<tcu_graph> &each) { return each.get() == graph; });
}

int tcu_graph_launch(tcu_engine *e, tcu_graph *graph) {
  CHECK(enter_step(e));
  const auto found = find_graph(*e, graph);
  if (e->recording || found == e->graphs.end()) return failed(TCU_ARGUMENT, "tcu_graph_launch: while capturing, or not a graph of this engine");
  const tcu_step &now = e->step, &then = graph->step;
  const bool is_same = now.token_count == then.token_count && now.run_count == then.run_count && now.output_count == then.output_count &&
                       now.most_keys == then.most_keys;
  if (!is_same) return failed(TCU_ARGUMENT, "tcu_graph_launch: the graph was recorded for a step with other numbers");
  e->compute.queue([held = *found] {
    for (const std::function<void()> &work : held->work) work();
  });
  e->in_step = !graph->ends_step;
  return TCU_OK;
}

int tcu_graph_free(tcu_engine *e, tcu_graph *graph) {
  CHECK(enter(e));
  const auto found = find_graph(*e, graph);
  if (found == e->graphs.end()) return failed(TCU_ARGUMENT, "tcu_graph_free: not a graph of this engine");
  e->graphs.erase(found);
  return TCU_OK;
}

int tcu_is_idle(tcu_engine *e, int32_t *idle) {
  CHECK(enter(e));
  if (!idle) return failed(TCU_ARGUMENT, "tcu_is_idle: nowhere to put the result");
  *idle = e->compute.is_done(e->compute.newest()) && e->copies.is_done(e->copies.newest());
  /* a failure inside a step is told by a word alone: its text is here for who asks */
  const std::lock_guard<std::mutex> lock(e->text_mutex);
  if (!e->failure_text.empty()) failed(TCU_OK, "%s", e->failure_text.c_str());
  return TCU_OK;
}

static uint64_t clock_ns() {
  return (uint64_t)std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

int tcu_mark(tcu_engine *e, int32_t index) {
  CHECK(enter(e));
  if (!e->attached || !e->host.marks || index < 0 || index >= e->host.mark_count) return failed(TCU_ARGUMENT, "tcu_mark: there is no mark %d", index);
  queue_work(*e, [e, index] { __atomic_store_n(e->host.marks + index, clock_ns(), __ATOMIC_RELEASE); });
  return TCU_OK;
}

int tcu_clock(tcu_engine *e, uint64_t *ns) {
  CHECK(enter(e));
  if (!ns || e->recording) return failed(TCU_ARGUMENT, "tcu_clock: nowhere to put the result, or while capturing");
  if (!e->compute.wait(e->compute.newest(), e->shape.deadline_ms)) return failed(TCU_TIMEOUT, "tcu_clock: the device does not answer");
  *ns = clock_ns();
  return TCU_OK;
}
