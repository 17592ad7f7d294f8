/*
 * What the files of the CUDA library share: the engine, its buffers, and the functions that one file offers the others. A stage queues kernels on
 * engine.stream and returns a tcu_status; kernels take their numbers as parameters or from device memory, never from the host's, so that a captured
 * graph stays right. Dimensions are checked when weights are bound, not in the stages.
 */
#pragma once
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <stddef.h>
#include <stdint.h>
#include <vector>
#include "buffers.h"
#include "formats.cuh"
#include "tandem_cuda.h"

/* Forms of activations to be made, as bits. */
enum forms { FORM_ROWS = 1, FORM_Q8X32 = 2, FORM_Q8X256 = 4 };

struct layer_binding {
  bool bound, has_slot;
  tcu_layer weights;
  tcu_slot slot; /* addresses as the device sees them */
  int normed_forms, shared_forms; /* `forms` that the layer's attention, and its feed-forward part, want of normed */
};

/* One block of host memory that was registered, and where the device sees it. */
struct registration {
  char *address;
  char *device;
  uint64_t bytes;
};

/* One block of device memory. */
struct allocation {
  char *address;
  uint64_t bytes;
};

/* The engine's own words in page-locked host memory. */
struct engine_words {
  int32_t closing; /* set by tcu_close: every wait on the device ends */
  uint64_t clock;  /* written by tcu_clock */
};

struct tcu_engine {
  int device;
  tcu_shape shape;
  cudaStream_t stream, copy_stream;
  cudaEvent_t lanes[UPLOAD_LANES];
  bool capturing;
  int multiprocessors, shared_bytes; /* shared memory of each */
  bool starts_early; /* kernels may begin before the one ahead has ended: launch.cuh */
  buffers b;
  tcu_host host; /* addresses as the device sees them */
  bool attached;
  uint64_t *marks;  /* u64[host.mark_count] on the device; null when there are none */
  bool has_marks;   /* some are queued, which are to be told */
  tcu_model model;
  bool has_model;
  std::vector<layer_binding> layers;
  std::vector<allocation> allocations;
  std::vector<registration> registrations;
  std::vector<tcu_graph *> graphs;
  engine_words *words, *device_words; /* the same memory, as the host and as the device sees it */
  tcu_step step;                      /* numbers of the step at hand; no tokens before the first one */
  int published_layer;                /* whose hand-off tcu_router has already told, waiting for its tcu_publish; -1: none */
  int normed_layer;                   /* whose attention's input tcu_combine has already left in b.normed; -1: none. Any other stage ends it */
  bool ids_settled;                   /* a product was queued behind the router: whatever comes later may read expert ids before it waits */
};

struct tcu_graph {
  cudaGraphExec_t exec;
};

/* errors.cu: remembers the text, returns the status. `cuda_failed` turns a sticky error into TCU_LOST where the context does not come back. */
int failed(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));
int cuda_failed(cudaError_t error, const char *what);

#define CHECK_CUDA(call)                                                \
  do {                                                                  \
    const cudaError_t check_error = (call);                             \
    if (check_error != cudaSuccess) return cuda_failed(check_error, #call); \
  } while (0)
/* After a kernel launch. */
#define CHECK_LAUNCH(name)                                              \
  do {                                                                  \
    const cudaError_t check_error = cudaPeekAtLastError();              \
    if (check_error != cudaSuccess) return cuda_failed(cudaGetLastError(), name); \
  } while (0)
#define CHECK(call)                              \
  do {                                           \
    const int check_status = (call);             \
    if (check_status != TCU_OK) return check_status; \
  } while (0)

/* engine.cu: every entry begins so: makes the engine's device the thread's; TCU_ARGUMENT for null. */
int enter(tcu_engine *e);
/* engine.cu: the same for a stage of a step, and for a stage of a bound layer. */
int enter_step(tcu_engine *e);
int enter_layer(tcu_engine *e, int layer);
/* memory.cu: whether device memory belongs to the engine; where the device sees registered host memory (null for null). */
bool owns(const tcu_engine &e, uint64_t address, uint64_t bytes);
int device_address(const tcu_engine &e, const void *host, uint64_t bytes, const char *what, void **device);

/* formats.cuh / matmul.cu: what a format wants, or -1 when there is no such format. */
int activation_of(int format);
/* TCU_OK when a matrix can be computed with; `what` for the error. */
int check_matrix(const tcu_matrix &matrix, const char *what);
inline int form_of(int format) {
  const int activation = activation_of(format);
  return activation == ACTIVATION_Q8X32 ? FORM_Q8X32 : activation == ACTIVATION_Q8X256 ? FORM_Q8X256 : FORM_ROWS;
}

/* quantize.cu: y = x / rms(x) * weight in the given forms; rows taken through `index` (i32[tokens]) when it is not null. */
int norm_and_quantize(tcu_engine &e, const activations &y, int forms, const float *x, const float *weight, const int32_t *index, int columns, int tokens);
/* quantize.cu: e.b.x += routed (null: none) + shared (null: none) as `combine` does it, then norm_and_quantize of it; for few tokens. */
int combine_and_norm(tcu_engine &e, const float *routed, const float *shared, const activations &y, int forms, const float *weight);
/* quantize.cu: the given forms of y.rows, which are complete. */
int quantize_rows(tcu_engine &e, const activations &y, int forms, int columns, int tokens);

/* matmul.cu: y[t][r] = W x + bias, or += ; f32[tokens, y_stride]. Chooses matvec or tiles. */
enum matmul_flags { MATMUL_STORE = 0, MATMUL_ADD = 1 };
int matmul(tcu_engine &e, const tcu_matrix &w, const activations &x, float *y, int y_stride, int flags, const float *bias, int tokens);
/* matmul.cu: the same for matrices with equal columns, whose results stand side by side in a row of y: y[t] = W_0 x + bias_0, W_1 x + bias_1, ... */
struct stacked_matrix {
  tcu_matrix w;
  const float *bias;
};
enum { MOST_STACKED = 3 };
int matmul_stacked(tcu_engine &e, const stacked_matrix *stack, int count, const activations &x, float *y, int y_stride, int tokens);
/* matmul.cu: e.b.hidden = silu(gate x) * (up x) in the forms that `down` wants, of a network with one expert. */
int gated(tcu_engine &e, const tcu_ffn &ffn, const activations &x, int tokens);

/* Whether a step's products go to matvec. */
inline bool suits_matvec(const tcu_engine &e, int tokens) { return tokens * e.shape.digits <= DECODE_TOKENS; }

/* matvec.cu: for as many tokens as it suits, every weight is read once for all of them. */
int matvec(tcu_engine &e, const tcu_matrix &w, const activations &x, float *y, int y_stride, int flags, const float *bias, int tokens);
int matvec_stacked(tcu_engine &e, const stacked_matrix *stack, int count, const activations &x, float *y, int y_stride, int tokens);
int matvec_gated(tcu_engine &e, const tcu_ffn &ffn, const activations &x, int tokens);
/* matvec.cu: e.b.routed = the layer's experts of e.b.normed, each pair (token, expert) read on its own. */
int matvec_experts(tcu_engine &e, const tcu_ffn &ffn, int tokens);

/* tiles.cu: any number of tokens, on tensor cores where the format allows. */
int matmul_tiles(tcu_engine &e, const tcu_matrix &w, const activations &x, float *y, int y_stride, int flags, const float *bias, int tokens);
/* experts.cu: e.b.routed = the layer's experts of e.b.normed, tokens grouped by expert. */
int experts_tiles(tcu_engine &e, const tcu_ffn &ffn, int tokens);
/* elementwise.cu: y = silu(gate) * up in the given forms; gated: f32[rows, 2 * columns], gate's columns, then up's. */
int silu_and_quantize(tcu_engine &e, const activations &y, int forms, const float *gated, int columns, int rows);

/* head.cu: ids and logits of the `top` best of every row of e.b.logits, to host memory. */
int tell_best(tcu_engine &e, int rows, int top);

/* embed.cu: e.b.x = rows of the embedding. */
int embed(tcu_engine &e);
/* router.cu: ids and weights of e.b.router_logits; with a slot also there, with the records, and told when `publish` is true. */
int route(tcu_engine &e, const layer_binding &layer, bool publish);
/* handoff.cu */
int publish(tcu_engine &e, const layer_binding &layer);
int await_routed(tcu_engine &e);
/* marks.cu: copies the marks to host memory if any were queued. */
int tell_marks(tcu_engine &e);
/* combine.cu: e.b.x += routed (null: none) + shared (null: none), f32[tokens, hidden] each. */
int combine(tcu_engine &e, const float *routed, const float *shared);
/* rows.cu: 4-byte words from one place to another, host memory as the device sees it included. */
int copy_words(tcu_engine &e, void *to, const void *from, int64_t count);
/* step.cu: TCU_ABSENT when the library has no code for the device; whether that code knows how to begin early (launch.cuh). */
int check_code(int device, bool &starts_early);

/* attention.cu: qkv -> rope, cache -> e.b.attended in the given forms. */
int attend(tcu_engine &e, const layer_binding &layer, int forms);
