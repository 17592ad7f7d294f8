/*
 * What the files of the stand-in share: the same engine as cuda/engine.cuh's, with a thread in place of a stream. A stage checks its arguments,
 * queues a closure and returns; the closure runs on the engine's thread and reads numbers that it took along, so that a recorded one stays right.
 *
 * It is stricter than a GPU: what would be read or written out of bounds there is an error here.
 */
#pragma once
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>
#include "../buffers.h"
#include "../formats.cuh"
#include "faults.h"
#include "stream.h"

/* Forms of activations to be made, as bits. */
enum forms { FORM_ROWS = 1, FORM_Q8X32 = 2, FORM_Q8X256 = 4 };

struct layer_binding {
  bool bound, has_slot;
  tcu_layer weights;
  tcu_slot slot;
  int attention_forms, ffn_forms; /* `forms` of normed that the layer's attention, and its feed-forward part, want */
};

/* A piece of registered host memory, or of "device" memory. */
struct piece {
  char *address;
  uint64_t bytes;
};

struct tcu_graph {
  std::vector<std::function<void()>> work;
  tcu_step step;  /* the numbers it was recorded with */
  bool ends_step;
};

struct tcu_engine {
  tcu_shape shape;
  buffers b;
  stream compute, copies;
  uint64_t lanes[UPLOAD_LANES] = {}; /* each lane's last ticket on `copies` */
  tcu_host host = {};
  bool attached = false, has_model = false;
  tcu_model model = {};
  std::vector<layer_binding> layers;
  std::vector<piece> allocations, registrations;
  tcu_step step = {}; /* the step at hand, as the calling thread sees it */
  bool in_step = false;
  int published_layer = -1; /* whose hand-off tcu_router has told, waiting for its tcu_publish; -1: none */
  std::unique_ptr<tcu_graph> recording; /* while capturing */
  std::vector<std::shared_ptr<tcu_graph>> graphs;

  std::atomic<bool> closing{false};
  std::atomic<int> device_failure{TCU_OK}; /* found by every later call */
  std::mutex text_mutex;
  std::string failure_text; /* of what failed on the engine's thread */

  /* of the engine's thread alone */
  int step_failure = TCU_OK; /* told by tcu_end_step */
  uint32_t published = 0, finished = 0;
};

/* errors.cpp: remembers the text for the calling thread, returns the status. */
int failed(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The calling thread's text. */
const char *last_text();

#define CHECK(call)                                  \
  do {                                               \
    const int check_status = (call);                 \
    if (check_status != TCU_OK) return check_status; \
  } while (0)

/* queue.cpp: every entry begins so. `enter_layer`: a stage of a bound layer, in a step. */
int enter(tcu_engine *e);
int enter_step(tcu_engine *e);
int enter_layer(tcu_engine *e, int layer);
/* Queues work, or records it. */
void queue_work(tcu_engine &e, std::function<void()> work);
/* Queues a stage, which is left out once something has failed; the status that it returns becomes the step's. */
void queue_stage(tcu_engine &e, const char *name, std::function<int()> stage);
/* On the engine's thread: the status of a failure inside the step, with the thread's text. */
void fail_step(tcu_engine &e, int status);

/* handoff.cpp: tells the pool of a slot. */
void queue_publish(tcu_engine &e, const tcu_slot &slot);

/* memory.cpp: "device" memory, or null when the limit does not allow it. */
char *device_allocate(uint64_t bytes);
void device_free(const piece &allocation);
/* Limit, and what is left of it. */
void device_memory(uint64_t *bytes, uint64_t *free_bytes);
bool owns(const tcu_engine &e, uint64_t address, uint64_t bytes);
/* TCU_OK for null and for registered host memory. */
int check_registered(const tcu_engine &e, const void *address, uint64_t bytes, const char *what);

/* matmul.cpp */
int form_of(int format);
bool has_matrix(const tcu_matrix &w);
/* Bytes of one expert's matrix; 0 when there is no such format, or when columns are no whole blocks. */
uint64_t matrix_bytes(const tcu_matrix &w);
/* y: f32[columns] = row `row` of W. */
void decode_row(float *y, const tcu_matrix &w, int64_t row);
/* y[t][r] = bias[r] + sum_c W[r][c] x[index[t]][c], or += ; f32[tokens, y_stride]. `bias`, `index` may be null. */
enum matmul_flags { MATMUL_STORE = 0, MATMUL_ADD = 1 };
void matmul(float *y, int y_stride, int flags, const tcu_matrix &w, int expert, const activations &x, const int32_t *index, const float *bias, int tokens);

/* quantize.cpp: the forms of y.rows: f32[tokens, columns]. */
void make_forms(const activations &y, int forms, int columns, int tokens);
/* y.rows = x / rms(x) * weight, and its forms. */
void norm_row(float *y, const float *x, const float *weight, int columns, float epsilon);
void norm_rows(const activations &y, int forms, const float *x, const float *weight, int columns, int tokens, float epsilon);
/* A record of wasm/activations.h from x: f32[columns], and its bytes; of `digits` digits. */
void write_record(uint8_t *record, int form, const float *x, int columns, int digits);
uint64_t record_bytes(int form, int columns, int digits);
