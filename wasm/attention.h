/*
 * The order inside a KV block, which rope_store and attend alone know:
 *   keys    f16[head_dim, 32 tokens]: transposed, so that one vector holds the same element of several keys and scores need no horizontal sums
 *   values  f16[32 tokens, head_dim]
 */
#pragma once
#include <stddef.h>
#include "kernels.h"

/* Bytes of one KV head in one block. */
static inline size_t head_block_bytes(int head_dim) { return (size_t)KV_BLOCK_TOKENS * (size_t)head_dim * 2; }
