/* Device memory, registered host memory, and copies between them. */
#include "engine.cuh"

bool owns(const tcu_engine &e, uint64_t address, uint64_t bytes) {
  for (const allocation &a : e.allocations) {
    const uint64_t begin = (uint64_t)a.address;
    if (address >= begin && bytes <= a.bytes && address - begin <= a.bytes - bytes) return true;
  }
  return false;
}

int device_address(const tcu_engine &e, const void *host, uint64_t bytes, const char *what, void **device) {
  *device = nullptr;
  if (!host) return TCU_OK;
  for (const registration &r : e.registrations) {
    const uint64_t begin = (uint64_t)r.address, at = (uint64_t)host;
    if (at < begin || bytes > r.bytes || at - begin > r.bytes - bytes) continue;
    *device = r.device + (at - begin);
    return TCU_OK;
  }
  return failed(TCU_ARGUMENT, "%s: %llu bytes at %p are not in registered host memory", what, (unsigned long long)bytes, host);
}

int tcu_register(tcu_engine *e, void *address, uint64_t bytes) {
  CHECK(enter(e));
  if (!address || bytes == 0) return failed(TCU_ARGUMENT, "tcu_register: no memory");
  if ((uint64_t)address % 4096 != 0 || bytes % 4096 != 0) return failed(TCU_ARGUMENT, "tcu_register: not on whole pages of 4096 bytes");
  CHECK_CUDA(cudaHostRegister(address, bytes, cudaHostRegisterMapped | cudaHostRegisterPortable));
  void *device;
  const cudaError_t error = cudaHostGetDevicePointer(&device, address, 0);
  if (error != cudaSuccess) {
    cudaHostUnregister(address);
    return cuda_failed(error, "cudaHostGetDevicePointer");
  }
  e->registrations.push_back({(char *)address, (char *)device, bytes});
  return TCU_OK;
}

int tcu_memory(tcu_engine *e, uint64_t bytes, uint64_t *address) {
  CHECK(enter(e));
  if (!address || bytes == 0) return failed(TCU_ARGUMENT, "tcu_memory: no bytes, or nowhere to put the address");
  *address = 0;
  void *memory;
  const cudaError_t error = cudaMalloc(&memory, bytes);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    size_t available = 0, all = 0;
    cudaMemGetInfo(&available, &all);
    return failed(TCU_MEMORY, "%s: %s: asked for %llu bytes, %zu of %zu are free", cudaGetErrorName(error), cudaGetErrorString(error),
                  (unsigned long long)bytes, available, all);
  }
  if (error != cudaSuccess) return cuda_failed(error, "cudaMalloc");
  e->allocations.push_back({(char *)memory, bytes});
  *address = (uint64_t)memory;
  return TCU_OK;
}

/* Waits, because copies to the same memory run on another stream. */
int tcu_clear(tcu_engine *e, uint64_t address, uint64_t bytes) {
  CHECK(enter(e));
  if (!owns(*e, address, bytes)) return failed(TCU_ARGUMENT, "tcu_clear: not the engine's memory");
  CHECK_CUDA(cudaMemsetAsync((void *)address, 0, bytes, e->stream));
  CHECK_CUDA(cudaStreamSynchronize(e->stream));
  return TCU_OK;
}

int tcu_upload(tcu_engine *e, int32_t lane, uint64_t address, const void *host, uint64_t bytes) {
  CHECK(enter(e));
  if (lane < 0 || lane >= UPLOAD_LANES) return failed(TCU_ARGUMENT, "tcu_upload: lane %d", lane);
  if (!host || !owns(*e, address, bytes)) return failed(TCU_ARGUMENT, "tcu_upload: no source, or not the engine's memory");
  void *from;
  CHECK(device_address(*e, host, bytes, "tcu_upload", &from));
  CHECK_CUDA(cudaMemcpyAsync((void *)address, host, bytes, cudaMemcpyHostToDevice, e->copy_stream));
  CHECK_CUDA(cudaEventRecord(e->lanes[lane], e->copy_stream));
  return TCU_OK;
}

int tcu_upload_wait(tcu_engine *e, int32_t lane) {
  CHECK(enter(e));
  if (lane < 0 || lane >= UPLOAD_LANES) return failed(TCU_ARGUMENT, "tcu_upload_wait: lane %d", lane);
  CHECK_CUDA(cudaEventSynchronize(e->lanes[lane]));
  return TCU_OK;
}
