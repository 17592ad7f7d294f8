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
#include "tandem_cuda.h"

enum { KV_BLOCK_TOKENS = 32, UPLOAD_LANES = 4, DECODE_TOKENS = 8, GROUP = 16 };
enum { GATING_SOFTMAX = 1, GATING_SIGMOID = 2 };

/* What activations become before they meet a weight (src/abi/formats.ts). */
enum activation { ACTIVATION_F32 = 0, ACTIVATION_Q8X32 = 1, ACTIVATION_Q8X256 = 2 };

/*
 * Rows quantised to 8 bits, the same numbers as the records of wasm/activations.h in an order that suits the device:
 * x[t][c] = scales[t][c / GROUP] * values[t][c]. For q8x32 two neighbouring groups have the same scale; for q8x256 the scale has the factor in it.
 */
struct quantized {
  int8_t *values; /* i8[tokens, columns] */
  float *scales;  /* f32[tokens, columns / GROUP] */
  float *sums;    /* f32[tokens, columns / GROUP]: scale times the sum of the group's values, for formats with a minimum */
};

/* Rows in every form that some weight wants of them. */
struct activations {
  float *rows; /* f32[tokens, columns] */
  quantized q8x32, q8x256;
};

/* Forms of activations to be made, as bits. */
enum forms { FORM_ROWS = 1, FORM_Q8X32 = 2, FORM_Q8X256 = 4 };

/* A step as the device sees it; copied there by tcu_begin_step. */
struct step_buffers {
  int32_t *token_ids, *positions, *cache_rows, *outputs; /* i32[tokens], i32[outputs] */
  int32_t *runs;                                         /* i32[sequences, 4] */
  int32_t *run_of_token;                                 /* i32[tokens] */
  int32_t *block_tables;                                 /* i32[sequences, blocks_per_sequence] */
  float *angles;                                         /* f32[tokens, rotary]: cos, then sin */
};

/* Pairs (token, expert) grouped by expert, for prefill on the device. */
struct groups {
  int32_t *offsets;    /* i32[experts + 1] */
  int32_t *pair_token; /* i32[tokens * experts_used] */
  float *pair_weight;  /* f32[tokens * experts_used] */
  int32_t *tiles;      /* i32[1 + 2 * most tiles]: count, then (expert, first pair) of every tile of tokens */
};

struct buffers {
  step_buffers step;
  double *frequencies; /* f64[rotary / 2] */
  float *x;            /* f32[ubatch, hidden]: the residual stream */
  activations normed;  /* [ubatch, hidden] */
  float *qkv;          /* f32[ubatch, (heads + 2 kv_heads) * head_dim]: q, k, v side by side */
  activations attended; /* [ubatch, heads * head_dim] */
  float *parts;        /* partial results of attention in decode */
  size_t parts_floats;
  float *router_logits; /* f32[ubatch, experts] */
  int32_t *expert_ids;  /* i32[ubatch, experts_used] */
  float *expert_weights;
  float *gated;        /* f32[rows, 2 * ffn]: what gate and up give, before they are joined, where they are computed apart */
  activations hidden;  /* [rows, ffn or ffn_expert]: silu(gate) * up */
  float *shared, *routed; /* f32[ubatch, hidden] */
  groups pairs;
  float *logits;       /* f32[outputs, vocabulary] */
  uint32_t *counters;  /* see enum counter */
};

/* Words of `counters`, on the device, all zero at the start. */
enum counter { COUNTER_PUBLISHED = 0, COUNTER_FINISHED = 1, COUNTER_FAILED = 2, COUNTERS = 64 };

struct layer_binding {
  bool bound, has_slot;
  tcu_layer weights;
  tcu_slot slot; /* addresses as the device sees them */
  int normed_forms, shared_forms; /* `forms` that the layer's attention, and its feed-forward part, want of normed */
};

/* One block of host memory that was registered. */
struct registration {
  void *address;
  uint64_t bytes;
};

struct tcu_engine {
  int device;
  tcu_shape shape;
  cudaStream_t stream, copy_stream;
  cudaEvent_t lanes[UPLOAD_LANES];
  bool capturing;
  int multiprocessors;
  buffers b;
  tcu_host host; /* addresses as the device sees them */
  bool attached;
  tcu_model model;
  bool has_model;
  std::vector<layer_binding> layers;
  std::vector<void *> allocations;
  std::vector<registration> registrations;
  tcu_step step; /* numbers of the step at hand */
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
/* quantize.cu: the given forms of y.rows, which are complete. */
int quantize_rows(tcu_engine &e, const activations &y, int forms, int columns, int tokens);

/* matmul.cu: y[t][r] = W x + bias, or += ; f32[tokens, y_stride]. Chooses matvec (tokens <= DECODE_TOKENS) or tiles. */
enum matmul_flags { MATMUL_STORE = 0, MATMUL_ADD = 1 };
int matmul(tcu_engine &e, const tcu_matrix &w, const activations &x, float *y, int y_stride, int flags, const float *bias, int tokens);
/* matmul.cu: e.b.hidden = silu(gate x) * (up x) in the forms that `down` wants, of a network with one expert. */
int gated(tcu_engine &e, const tcu_ffn &ffn, const activations &x, int tokens);

/* matvec.cu: 1 to DECODE_TOKENS tokens, every weight is read once for all of them. */
int matvec(tcu_engine &e, const tcu_matrix &w, const activations &x, float *y, int y_stride, int flags, const float *bias, int tokens);
int matvec_gated(tcu_engine &e, const tcu_ffn &ffn, const activations &x, int tokens);
/* matvec.cu: e.b.routed = the layer's experts of e.b.normed, each pair (token, expert) read on its own. */
int matvec_experts(tcu_engine &e, const tcu_ffn &ffn, int tokens);

/* tiles.cu: any number of tokens, on tensor cores where the format allows. */
int matmul_tiles(tcu_engine &e, const tcu_matrix &w, const activations &x, float *y, int y_stride, int flags, const float *bias, int tokens);
/* experts.cu: e.b.routed = the layer's experts of e.b.normed, tokens grouped by expert. */
int experts_tiles(tcu_engine &e, const tcu_ffn &ffn, int tokens);
/* elementwise.cu: y.rows = silu(gate) * up of gated: f32[rows, 2 * columns] (gate's columns, then up's), then the forms. */
int silu_and_quantize(tcu_engine &e, const activations &y, int forms, const float *gated, int columns, int rows);

/* attention.cu: qkv -> rope, cache -> e.b.attended in the given forms. */
int attend(tcu_engine &e, const layer_binding &layer, int forms);
