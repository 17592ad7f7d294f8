/*
 * The CUDA executor's whole boundary. One library implements it for NVIDIA GPUs (nvcc), a second one with portable code (host/, gcc), which stands
 * in for a GPU in tests. `src/abi/cuda.ts` is the TypeScript twin of this header; a test compares the two.
 *
 * Every function returns a `tcu_status`, results come through pointers at the end. Nothing is printed, nothing exits. A handle belongs to one thread.
 *
 * An engine is one device with one stream. Stage functions only queue work: they return at once, and the work runs in the order of the calls.
 * Its end, and a failure on the device, are told through words in host memory (`tcu_host`), so that nobody needs to synchronise.
 *
 *     tcu_open -> tcu_register, tcu_memory, tcu_upload -> tcu_bind_model, tcu_bind_layer -> steps -> tcu_close
 *
 *     a step   tcu_begin_step, tcu_embed,
 *              for each layer: tcu_attention, then tcu_dense_ffn or
 *                  tcu_router [tcu_publish], tcu_shared_experts, tcu_routed_experts or tcu_await_routed, tcu_combine
 *              tcu_head, tcu_end_step
 *
 * A step may come in parts, between which somebody else looks at what it works on, or changes it: each part begins with tcu_begin_step of the same
 * record and ends with tcu_end_step, and what was computed stays. tcu_read_rows stands at a part's end, tcu_write_rows at the beginning of the next.
 *
 * Everything between tcu_begin_step and the end of tcu_end_step may be captured once as a graph and launched for every later step with the same
 * `tcu_step` numbers. Letters, always in this order: tokens, heads, rows (outputs), columns (inputs); `f32[tokens, columns]` is row-major.
 * Quantisation, activation formats and results are those of `wasm/kernels.h`: activations meet a quantised weight as records of 8 bits, or of twice 8,
 * sums are f32.
 */
#pragma once
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { TCU_ABI_VERSION = 3 };

typedef enum tcu_status {
  TCU_OK = 0,
  TCU_ARGUMENT = 1,  /* a null pointer, a layer that is not bound, a call out of order */
  TCU_FORMAT = 2,    /* a format this library has no kernel for */
  TCU_SHAPE = 3,     /* a dimension the kernels cannot do */
  TCU_MEMORY = 4,    /* the device has not enough memory */
  TCU_ABSENT = 5,    /* no driver, no device, or a device older than the library was built for */
  TCU_DEVICE = 6,    /* the driver reported an error; the engine must be closed */
  TCU_LOST = 7,      /* the same, and no engine can be opened in this process any more */
  TCU_TIMEOUT = 8,   /* a deadline passed: a hand-off that never came, or a device that never answered */
  TCU_POISONED = 9,  /* the poison word was set by someone else */
} tcu_status;

/* What tcu_head leaves in host memory, as bits. */
typedef enum tcu_results {
  TCU_LOGITS = 1,
  TCU_HIDDEN = 2,
} tcu_results;

/* What a step works on, a row for each of its tokens. */
typedef enum tcu_rows {
  TCU_X = 0,              /* f32[tokens, hidden]: the residual stream */
  TCU_SHARED = 1,         /* f32[tokens, hidden]: what the shared experts gave */
  TCU_ROUTED = 2,         /* f32[tokens, hidden]: what the routed experts on the device gave */
  TCU_EXPERT_IDS = 3,     /* i32[tokens, experts_used]; they can be read alone */
  TCU_EXPERT_WEIGHTS = 4, /* f32[tokens, experts_used] */
} tcu_rows;

typedef struct tcu_engine tcu_engine;
typedef struct tcu_graph tcu_graph;

/* What a device is. */
typedef struct tcu_device {
  char name[128];
  uint64_t bytes;       /* memory in all */
  uint64_t free_bytes;  /* memory that is free now */
  int32_t major, minor; /* compute capability; 0.0 for the stand-in */
  int32_t multiprocessors;
  int32_t driver;       /* version of CUDA that the driver supports: 13000 is 13.0 */
} tcu_device;

/* What an engine is made for: the model's dimensions and the most that a step may have. */
typedef struct tcu_shape {
  int32_t hidden, heads, kv_heads, head_dim, rotary, vocabulary;
  int32_t layers;
  int32_t ffn;              /* widest feed-forward row that is computed on this device: dense, shared; 0 when there is none */
  int32_t ffn_expert;       /* row of one routed expert; used when tcu_routed_experts will be called */
  int32_t experts, experts_used;
  int32_t device_experts;   /* 1 when some layer's routed experts are on the device */
  int32_t gating;           /* GATING_SOFTMAX 1, GATING_SIGMOID 2 */
  int32_t normalize_weights;
  float weights_scale;
  float epsilon;
  int32_t ubatch;           /* most tokens of a step */
  int32_t sequences;        /* most runs of a step */
  int32_t outputs;          /* most logit rows of a step */
  int32_t kv_blocks;        /* blocks of KV_BLOCK_TOKENS = 32 tokens in each cache */
  int32_t blocks_per_sequence;
  int32_t top;              /* most best tokens that a step may want told of an output row, 0 to 64 */
  int32_t digits;           /* 8-bit integers to each value of an activation that meets a quantised weight: 1 (q8) or 2 (q16) */
  int32_t deadline_ms;      /* longest that tcu_await_routed waits */
} tcu_shape;

/* A weight matrix W[rows, columns] on the device, or one for each expert; blocks as they lie in the file, rows back to back. */
typedef struct tcu_matrix {
  uint64_t address;      /* on the device; 0: there is none */
  uint64_t expert_bytes; /* from one expert's matrix to the next one's */
  int32_t format;        /* ggml type id */
  int32_t rows, columns;
  int32_t experts;
} tcu_matrix;

/* down(silu(gate x) * up x) */
typedef struct tcu_ffn {
  tcu_matrix gate, up, down;
} tcu_ffn;

/* One layer's weights. Vectors are addresses of f32 on the device, 0 when there are none. */
typedef struct tcu_layer {
  uint64_t attention_norm, q_bias, k_bias, v_bias, q_norm, k_norm;
  tcu_matrix q, k, v, output;
  uint64_t key_cache, value_cache; /* f16[kv_blocks, kv_heads, KV_BLOCK_TOKENS, head_dim] each */
  uint64_t ffn_norm;
  tcu_ffn dense;
  tcu_matrix router;
  uint64_t selection_bias;
  tcu_ffn shared;
  tcu_ffn routed;
} tcu_layer;

/* What is not part of a layer. */
typedef struct tcu_model {
  tcu_matrix embedding;
  uint64_t output_norm;
  tcu_matrix head;
} tcu_model;

/*
 * Host memory for a layer's hand-off to the pool, all of it registered. Records as `wasm/activations.h` has them, one row for each token.
 * A null pointer: nobody wants this form.
 */
typedef struct tcu_slot {
  float *normed;        /* f32[tokens, hidden] */
  uint8_t *q8x32;       /* records; q16x32 and q16x256 where shape.digits is 2 */
  uint8_t *q8x256;
  int32_t *expert_ids;  /* i32[tokens, experts_used], ascending in each token */
  float *expert_weights;
  const float *routed;  /* f32[tokens, hidden]: what the pool answers, weighted and summed */
  int32_t entry;        /* told with every hand-off: which entry of the pool's program to run */
  int32_t holds;        /* 1: nobody but tcu_publish tells the pool, because the slot may be changed before */
} tcu_slot;

/* Words and results in host memory, registered before tcu_attach. All words count up and wrap; each is written by one side alone. */
typedef struct tcu_host {
  const int32_t *poison;   /* not 0: every wait on the device ends with TCU_POISONED */
  int32_t *published;      /* device: hand-offs published; published[1]: the slot's entry, published[2]: its tokens, both written before */
  const int32_t *completed; /* pool: hand-offs whose `routed` is complete */
  int32_t *finished;       /* device: steps finished; everything the step wrote to host memory is there before */
  int32_t *status;         /* device: tcu_status of the first failure inside a step, 0 while there is none; written before `finished` */
  float *logits;           /* f32[outputs, vocabulary] */
  float *hidden;           /* f32[outputs, hidden]: what the head multiplies, after the last norm; null: TCU_HIDDEN is never asked for */
  /*
   * i32[outputs, shape.top], f32[outputs, shape.top], null when that is 0: the tokens with the highest logits, best first, ties to the lower id. NaN
   * and both infinities come before all else, so that a first one that is finite says that its whole row is.
   */
  int32_t *top_ids;
  float *top_logits;
  uint64_t *marks;         /* tcu_mark writes here */
  int32_t mark_count;
} tcu_host;

/* A step record's parts in registered host memory (src/abi/step.ts), and the numbers a graph depends on. */
typedef struct tcu_step {
  const int32_t *token_ids, *positions, *cache_rows; /* i32[tokens] */
  const int32_t *outputs;                            /* i32[outputs]: tokens whose logits are wanted */
  const int32_t *runs;                               /* i32[runs, 4]: first token, tokens, block table, unused */
  const int32_t *block_tables;                       /* i32[*, blocks_per_sequence] */
  int32_t token_count, run_count, output_count;
  int32_t most_keys;                                 /* an upper bound of position + 1 of every token in the step */
} tcu_step;

int tcu_abi_version(int32_t *version);
int tcu_device_count(int32_t *count);
int tcu_device_info(int32_t index, tcu_device *info);
/* Text of the last failure on the calling thread, cut to `bytes` with its end. */
int tcu_error_text(char *text, int32_t bytes);

/* Bytes of device memory that an engine of this shape takes for itself at tcu_open: all buffers but weights and KV caches. */
int tcu_buffer_bytes(const tcu_shape *shape, uint64_t *bytes);
/* rope_frequencies: f64[rotary / 2], radians per position. */
int tcu_open(int32_t device, const tcu_shape *shape, const double *rope_frequencies, tcu_engine **engine);
/* Ends what is queued (a wait for the pool included), gives back all memory, unregisters. The engine is gone whatever is returned. */
int tcu_close(tcu_engine *engine);

/* Page-locks host memory and maps it for the device. `address` and `bytes` on whole pages. */
int tcu_register(tcu_engine *engine, void *address, uint64_t bytes);
/* Device memory, 256-byte aligned, owned by the engine, contents undefined. */
int tcu_memory(tcu_engine *engine, uint64_t bytes, uint64_t *address);
/* Fills device memory with zero bytes. */
int tcu_clear(tcu_engine *engine, uint64_t address, uint64_t bytes);
/* Queues a copy to the device on the copy stream; `host` is registered. Lanes 0 to 3 are independent. */
int tcu_upload(tcu_engine *engine, int32_t lane, uint64_t address, const void *host, uint64_t bytes);
/* Returns when the lane's last copy is done. */
int tcu_upload_wait(tcu_engine *engine, int32_t lane);

int tcu_attach(tcu_engine *engine, const tcu_host *host);
int tcu_bind_model(tcu_engine *engine, const tcu_model *model);
/* `slot`: where the layer's routed experts are handed to the pool; null when they are on the device, or when it has none. */
int tcu_bind_layer(tcu_engine *engine, int32_t layer, const tcu_layer *weights, const tcu_slot *slot);

/* Takes over the record of a step, or of its next part. Not part of a graph. */
int tcu_begin_step(tcu_engine *engine, const tcu_step *step);
int tcu_embed(tcu_engine *engine);
/* x += output(attention(norm x)) */
int tcu_attention(tcu_engine *engine, int32_t layer);
/* x += dense(norm x) */
int tcu_dense_ffn(tcu_engine *engine, int32_t layer);
/* normed = norm x with its records; every token's expert ids and weights. With a slot they are written there too. */
int tcu_router(tcu_engine *engine, int32_t layer);
/*
 * Tells the pool that the slot is written. For few tokens tcu_router may have told it already, in the same kernel, unless the slot `holds`; then this
 * does nothing.
 */
int tcu_publish(tcu_engine *engine, int32_t layer);
/* shared = shared expert of normed */
int tcu_shared_experts(tcu_engine *engine, int32_t layer);
/* routed = sum of weight * expert of normed, on the device */
int tcu_routed_experts(tcu_engine *engine, int32_t layer);
/* Waits, on the device, until the pool has completed every hand-off published so far. */
int tcu_await_routed(tcu_engine *engine, int32_t layer);
/* x += routed + shared */
int tcu_combine(tcu_engine *engine, int32_t layer);
/* To host memory: which of `tcu_results` the bits in `results` say, and the `top` best of each row (0: none, which saves a pass over the logits). */
int tcu_head(tcu_engine *engine, int32_t results, int32_t top);
/* Copies the step's rows to registered host memory, back to back. `rows`: a `tcu_rows`. */
int tcu_read_rows(tcu_engine *engine, int32_t rows, void *host);
/* Copies the step's rows from there. */
int tcu_write_rows(tcu_engine *engine, int32_t rows, const void *host);
/* Counts `finished` up once everything before is done. */
int tcu_end_step(tcu_engine *engine);
/* Writes the device's clock, ns, to marks[index] once everything before is done; it is there when the step has ended. */
int tcu_mark(tcu_engine *engine, int32_t index);

/* What is queued between the two is recorded instead of run. */
int tcu_capture_begin(tcu_engine *engine);
int tcu_capture_end(tcu_engine *engine, tcu_graph **graph);
int tcu_graph_launch(tcu_engine *engine, tcu_graph *graph);
int tcu_graph_free(tcu_engine *engine, tcu_graph *graph);

/* 1 when everything queued has run, 0 when not; a failure of the device as its status. Never waits. */
int tcu_is_idle(tcu_engine *engine, int32_t *idle);
/* The device's clock now, ns; waits for the device, so only between steps. */
int tcu_clock(tcu_engine *engine, uint64_t *ns);

#ifdef __cplusplus
}
#endif
