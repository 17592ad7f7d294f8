/* rope_store: norm and rotation of q and k, and the way of keys and values into the cache. One warp for each head of each token. */
#include "attention.cuh"
#include "launch.cuh"

enum { ROPE_WARPS = 8 };

struct rope_arguments {
  float *qkv;                              /* f32[tokens, (heads + 2 kv_heads) * head_dim] */
  __half *keys, *values;                   /* f16[blocks, kv_heads, 32, head_dim] */
  const float *q_norm, *k_norm;            /* f32[head_dim] or null */
  const float *angles;                     /* f32[tokens, rotary]: cos, then sin */
  const int32_t *cache_rows;               /* i32[tokens]: block * 32 + offset */
  int heads, kv_heads, head_dim, rotary, tokens;
  float epsilon;
};

/* 1 / sqrt(mean(x^2) + epsilon) of f32[head_dim], the same in every lane. */
static __device__ float inverse_rms(const float *x, int head_dim, float epsilon, int lane) {
  float sum = 0;
  for (int i = lane; i < head_dim; i += 32) sum = fmaf(x[i], x[i], sum);
  for (int step = 16; step; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  return 1 / sqrtf(sum / (float)head_dim + epsilon);
}

static __device__ __forceinline__ void put(float *to, float x) { *to = x; }
static __device__ __forceinline__ void put(__half *to, float x) { *to = __float2half_rn(x); }

/* x: f32[head_dim], normed and rotated, to y (may be the same: an element is read and written by one lane). */
template <typename T>
static __device__ void rope_head(T *y, const float *x, const float *norm, const float *angles, const rope_arguments &a, int lane) {
  const float factor = norm ? inverse_rms(x, a.head_dim, a.epsilon, lane) : 1;
  const int pairs = a.rotary / 2;
  for (int i = lane; i < pairs; i += 32) {
    const float first = norm ? x[i] * factor * norm[i] : x[i];
    const float second = norm ? x[i + pairs] * factor * norm[i + pairs] : x[i + pairs];
    const float cosine = angles[i], sine = angles[i + pairs];
    put(y + i, first * cosine - second * sine);
    put(y + i + pairs, first * sine + second * cosine);
  }
  for (int i = a.rotary + lane; i < a.head_dim; i += 32) put(y + i, norm ? x[i] * factor * norm[i] : x[i]);
}

static __global__ void __launch_bounds__(32 * ROPE_WARPS) rope_kernel(rope_arguments a) {
  let_next_start();
  if (a.q_norm && threadIdx.x * 32 < a.head_dim) prefetch_line(a.q_norm + threadIdx.x * 32);
  if (a.k_norm && threadIdx.x * 32 < a.head_dim) prefetch_line(a.k_norm + threadIdx.x * 32);
  wait_for_previous();
  const int lane = threadIdx.x % 32, vectors = a.heads + 2 * a.kv_heads;
  const int index = blockIdx.x * ROPE_WARPS + threadIdx.x / 32, token = index / vectors, vector = index % vectors;
  if (token >= a.tokens) return;
  float *x = a.qkv + (int64_t)index * a.head_dim;
  const float *angles = a.angles + (int64_t)token * a.rotary;
  if (vector < a.heads) {
    rope_head(x, x, a.q_norm, angles, a, lane);
    return;
  }
  const int kv = vector - a.heads, is_value = kv >= a.kv_heads, head = is_value ? kv - a.kv_heads : kv;
  const int row = a.cache_rows[token];
  const int64_t block_head = (int64_t)(row / KV_BLOCK_TOKENS) * a.kv_heads + head;
  const int64_t at = (block_head * KV_BLOCK_TOKENS + row % KV_BLOCK_TOKENS) * a.head_dim;
  if (is_value) {
    for (int i = lane; i < a.head_dim; i += 32) put(a.values + at + i, x[i]);
  } else {
    rope_head(a.keys + at, x, a.k_norm, angles, a, lane);
  }
}

int rope_store(tcu_engine &e, const layer_binding &layer) {
  const tcu_shape &shape = e.shape;
  rope_arguments arguments = {};
  arguments.qkv = e.b.qkv;
  arguments.keys = (__half *)layer.weights.key_cache;
  arguments.values = (__half *)layer.weights.value_cache;
  arguments.q_norm = (const float *)layer.weights.q_norm;
  arguments.k_norm = (const float *)layer.weights.k_norm;
  arguments.angles = e.b.step.angles;
  arguments.cache_rows = e.b.step.cache_rows;
  arguments.heads = shape.heads;
  arguments.kv_heads = shape.kv_heads;
  arguments.head_dim = shape.head_dim;
  arguments.rotary = shape.rotary;
  arguments.tokens = e.step.token_count;
  arguments.epsilon = shape.epsilon;
  const int warps = e.step.token_count * (shape.heads + 2 * shape.kv_heads);
  launch_after(e, rope_kernel, dim3((unsigned)((warps + ROPE_WARPS - 1) / ROPE_WARPS)), 32 * ROPE_WARPS, 0, arguments);
  CHECK_LAUNCH("rope_kernel");
  return TCU_OK;
}
