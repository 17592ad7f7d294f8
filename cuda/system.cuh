/* Words and rows in host memory that the device shares with the host's threads, and the device's clock. */
#pragma once
#include <stdint.h>

/* What another thread wrote before it stored this value with release is visible after it. */
__device__ __forceinline__ int32_t load_acquire_system(const int32_t *word) {
  int32_t value;
  asm volatile("ld.acquire.sys.global.b32 %0, [%1];" : "=r"(value) : "l"(word) : "memory");
  return value;
}

/* Everything the thread wrote, or saw written, before is visible to who reads this value with acquire. */
__device__ __forceinline__ void store_release_system(int32_t *word, int32_t value) {
  asm volatile("st.release.sys.global.b32 [%0], %1;" ::"l"(word), "r"(value) : "memory");
}

/* Nanoseconds; one clock for the whole device. */
__device__ __forceinline__ uint64_t global_time() {
  uint64_t ns;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(ns)::"memory");
  return ns;
}

