/* A step's record on its way in, and the word that tells of its end. */
#include "engine.cuh"
#include "system.cuh"

enum { STEP_THREADS = 256, STEP_TOKENS = 64 };

/* Where the parts of the record lie as the device sees them, and how much of each there is. */
struct record {
  const int32_t *token_ids, *positions, *cache_rows, *outputs, *block_tables;
  const int4 *runs;
  int tokens, run_count, output_count, blocks, blocks_per_sequence, half;
};

/* Tokens begin .. begin + STEP_TOKENS: their numbers and angles. Read past the caches: the host rewrites the record for every step. */
__device__ void copy_tokens(const step_buffers &to, const record &from, const double *frequencies, int begin) {
  const int count = min(from.tokens - begin, (int)STEP_TOKENS);
  __shared__ int32_t positions[STEP_TOKENS];
  for (int i = threadIdx.x; i < count; i += STEP_THREADS) {
    const int t = begin + i;
    to.token_ids[t] = __ldcv(from.token_ids + t);
    to.cache_rows[t] = __ldcv(from.cache_rows + t);
    to.positions[t] = positions[i] = __ldcv(from.positions + t);
  }
  for (int r = threadIdx.x; r < from.run_count; r += STEP_THREADS) {
    const int4 run = __ldcv(from.runs + r);
    const int end = min(run.x + run.y, begin + count);
    for (int t = max(run.x, begin); t < end; t++) to.run_of_token[t] = r;
  }
  __syncthreads();
  /* in double: at position 100,000 an f32 product is wrong by 0.004 radians */
  for (int i = threadIdx.x; i < count * from.half; i += STEP_THREADS) {
    const int t = i / from.half, pair = i % from.half;
    double sine, cosine;
    sincos((double)positions[t] * frequencies[pair], &sine, &cosine);
    float *angles = to.angles + (size_t)(begin + t) * (size_t)(2 * from.half);
    angles[pair] = (float)cosine;
    angles[from.half + pair] = (float)sine;
  }
}

/* Run r: its block table becomes row r, as far as the step's keys reach. */
__device__ void copy_run(const step_buffers &to, const record &from, int r) {
  const int4 run = __ldcv(from.runs + r);
  if (threadIdx.x == 0) ((int4 *)to.runs)[r] = make_int4(run.x, run.y, r, 0);
  const int32_t *table = from.block_tables + (size_t)run.z * (size_t)from.blocks_per_sequence;
  int32_t *copy = to.block_tables + (size_t)r * (size_t)from.blocks_per_sequence;
  for (int i = threadIdx.x; i < from.blocks; i += STEP_THREADS) copy[i] = __ldcv(table + i);
}

/* One block for every STEP_TOKENS tokens, one for every run, one for the outputs. */
__global__ void __launch_bounds__(STEP_THREADS) begin_kernel(step_buffers to, record from, const double *frequencies) {
  const int token_blocks = (from.tokens + STEP_TOKENS - 1) / STEP_TOKENS, block = (int)blockIdx.x;
  if (block < token_blocks) {
    copy_tokens(to, from, frequencies, block * STEP_TOKENS);
  } else if (block < token_blocks + from.run_count) {
    copy_run(to, from, block - token_blocks);
  } else {
    for (int i = threadIdx.x; i < from.output_count; i += STEP_THREADS) to.outputs[i] = __ldcv(from.outputs + i);
  }
}

static int check_step(const tcu_engine &e, const tcu_step &step) {
  const tcu_shape &s = e.shape;
  if (step.token_count <= 0 || step.token_count > s.ubatch) return failed(TCU_SHAPE, "tcu_begin_step: %d tokens of %d", step.token_count, s.ubatch);
  if (step.run_count <= 0 || step.run_count > s.sequences || step.run_count > step.token_count) {
    return failed(TCU_SHAPE, "tcu_begin_step: %d runs of %d", step.run_count, s.sequences);
  }
  if (step.output_count < 0 || step.output_count > s.outputs) return failed(TCU_SHAPE, "tcu_begin_step: %d outputs of %d", step.output_count, s.outputs);
  if (step.most_keys <= 0 || step.most_keys > s.blocks_per_sequence * (int64_t)KV_BLOCK_TOKENS) {
    return failed(TCU_SHAPE, "tcu_begin_step: %d keys in %d blocks", step.most_keys, s.blocks_per_sequence);
  }
  if (!step.token_ids || !step.positions || !step.cache_rows || !step.runs || !step.block_tables || (step.output_count > 0 && !step.outputs)) {
    return failed(TCU_ARGUMENT, "tcu_begin_step: a part of the record is missing");
  }
  if ((uint64_t)step.runs % sizeof(int4) != 0) return failed(TCU_ARGUMENT, "tcu_begin_step: runs are not on 16 bytes");
  return TCU_OK;
}

int tcu_begin_step(tcu_engine *e, const tcu_step *step) {
  CHECK(enter(e));
  if (!step || !e->attached || e->capturing) return failed(TCU_ARGUMENT, "tcu_begin_step: no step, nothing attached, or while capturing");
  CHECK(check_step(*e, *step));
  const int runs = step->run_count, blocks = (step->most_keys + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
  record from = {};
  const auto see = [e](const void *host, int words, auto &device) {
    return device_address(*e, host, (uint64_t)words * 4, "tcu_begin_step", (void **)&device);
  };
  CHECK(see(step->token_ids, step->token_count, from.token_ids));
  CHECK(see(step->positions, step->token_count, from.positions));
  CHECK(see(step->cache_rows, step->token_count, from.cache_rows));
  CHECK(see(step->outputs, step->output_count, from.outputs));
  CHECK(see(step->runs, runs * 4, from.runs));
  CHECK(see(step->block_tables, blocks, from.block_tables));
  from.tokens = step->token_count;
  from.run_count = runs;
  from.output_count = step->output_count;
  from.blocks = blocks;
  from.blocks_per_sequence = e->shape.blocks_per_sequence;
  from.half = e->shape.rotary / 2;
  const int grid = (from.tokens + STEP_TOKENS - 1) / STEP_TOKENS + runs + (from.output_count > 0 ? 1 : 0);
  begin_kernel<<<(unsigned)grid, STEP_THREADS, 0, e->stream>>>(e->b.step, from, e->b.frequencies);
  CHECK_LAUNCH("begin_kernel");
  e->step = *step;
  e->normed_layer = -1;
  return TCU_OK;
}

__global__ void end_kernel(uint32_t *counters, int32_t *finished) {
  /* the step's results were written by other kernels: the fence makes them visible to the host before the count */
  __threadfence_system();
  store_release_system(finished, (int32_t)++counters[COUNTER_FINISHED]);
}

int tcu_end_step(tcu_engine *e) {
  CHECK(enter_step(e));
  CHECK(tell_marks(*e));
  end_kernel<<<1, 1, 0, e->stream>>>(e->b.counters, e->host.finished);
  CHECK_LAUNCH("end_kernel");
  return TCU_OK;
}

int check_code(int device, bool &starts_early) {
  cudaFuncAttributes attributes;
  const cudaError_t error = cudaFuncGetAttributes(&attributes, end_kernel);
  if (error == cudaSuccess) {
    /* compiled for sm_90 or newer: code for older devices that the driver translates has no waits in it */
    starts_early = attributes.ptxVersion >= 90;
    return TCU_OK;
  }
  if (error != cudaErrorInvalidDeviceFunction) return cuda_failed(error, "cudaFuncGetAttributes");
  cudaGetLastError();
  return failed(TCU_ABSENT, "the library has no code for device %d: %s", device, cudaGetErrorString(error));
}
