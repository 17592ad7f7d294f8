/*
 * Kernels that begin before the one ahead of them has ended, on devices that can (sm_90 and newer), so that a chain of short kernels does not pay
 * for every launch. A kernel queued with `launch_after` may fetch weights, which never change in a step, but calls `wait_for_previous` before it
 * reads what an earlier kernel wrote and before it writes anything. The wait lasts until the kernel directly ahead is done and its results are
 * visible; because that one waited too, so are those of all before it. So at least one thread of every such kernel waits.
 *
 *     ahead   |== wait ==|========= work =========|
 *     this           |= weights =|====== wait ======|========= work =========|
 *                    ^ all blocks of the kernel ahead have called let_next_start (or ended)
 *
 * A kernel that is launched in the ordinary way begins when everything before it is done, and lets nothing begin before its end.
 */
#pragma once
#include "engine.cuh"

__device__ __forceinline__ void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* The next kernel's blocks may take the places that this kernel's leave. */
__device__ __forceinline__ void let_next_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/* Fetches the line into the L2 cache. */
__device__ __forceinline__ void prefetch_line(const void *address) { asm volatile("prefetch.global.L2 [%0];" ::"l"(address)); }

/* Queues a kernel that calls wait_for_previous. An error is left for CHECK_LAUNCH. */
template <typename... Parameters, typename... Arguments>
void launch_after(const tcu_engine &e, void (*kernel)(Parameters...), dim3 grid, int threads, size_t shared_bytes, const Arguments &...arguments) {
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  /* all alike: a multiprocessor shares its memory out anew only when nothing runs on it, and kernels that differ could not meet there */
  attributes[1].id = cudaLaunchAttributePreferredSharedMemoryCarveout;
  attributes[1].val.sharedMemCarveout = cudaSharedmemCarveoutMaxShared;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3((unsigned)threads);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = e.stream;
  config.attrs = attributes;
  config.numAttrs = e.starts_early ? 2 : 0;
  cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}
