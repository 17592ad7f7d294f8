/* How much memory attention wants for partial results: plain C++, part of an engine's layout (buffers.h). */
#pragma once
#include <stdint.h>
#include "tandem_cuda.h"

enum {
  DECODE_BLOCKS = 2048, /* blocks that decode's grid aims to stay below, so that the partial results have a bound */
};

/*
 * Floats of buffers.parts that decode needs at most: for every head of every part of a context, sums f32[head_dim], the largest score and the
 * sum of weights. Parts are made until DECODE_BLOCKS is reached; a step with more heads than that has one part per sequence.
 */
inline uint64_t attention_parts_floats(const tcu_shape &shape) {
  const uint64_t rows = (uint64_t)shape.sequences * (uint64_t)shape.heads;
  const uint64_t group = (uint64_t)(shape.heads / shape.kv_heads);
  const uint64_t split = DECODE_BLOCKS * group;
  return (rows > split ? rows : split) * (uint64_t)(shape.head_dim + 2);
}
