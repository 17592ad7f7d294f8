/* Telling the pool of a slot: shared by the router, which does it for few tokens, and tcu_publish. */
#pragma once
#include "buffers.h"
#include "system.cuh"

/*
 * One thread, after everything in the slot was written by kernels before, or by threads that it has met at a barrier. The fence passes their
 * stores on to the host before the count.
 */
__device__ __forceinline__ void publish_slot(uint32_t *counters, int32_t *published, int entry, int tokens) {
  published[1] = entry;
  published[2] = tokens;
  __threadfence_system();
  store_release_system(published, (int32_t)++counters[COUNTER_PUBLISHED]);
}
