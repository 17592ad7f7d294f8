/* Devices, and an engine's beginning and end. */
#include <new>
#include <string.h>
#include "attention.cuh"
#include "engine.cuh"

int tcu_abi_version(int32_t *version) {
  if (!version) return failed(TCU_ARGUMENT, "tcu_abi_version: nowhere to put the result");
  *version = TCU_ABI_VERSION;
  return TCU_OK;
}

int tcu_device_count(int32_t *count) {
  if (!count) return failed(TCU_ARGUMENT, "tcu_device_count: nowhere to put the result");
  *count = 0;
  int devices;
  CHECK_CUDA(cudaGetDeviceCount(&devices));
  *count = devices;
  return TCU_OK;
}

int tcu_device_info(int32_t index, tcu_device *info) {
  if (!info) return failed(TCU_ARGUMENT, "tcu_device_info: nowhere to put the result");
  memset(info, 0, sizeof *info);
  int driver;
  size_t available, all;
  cudaDeviceProp properties;
  CHECK_CUDA(cudaGetDeviceProperties(&properties, index));
  CHECK_CUDA(cudaDriverGetVersion(&driver));
  CHECK_CUDA(cudaSetDevice(index));
  CHECK_CUDA(cudaMemGetInfo(&available, &all));
  memcpy(info->name, properties.name, sizeof info->name - 1);
  info->bytes = all;
  info->free_bytes = available;
  info->major = properties.major;
  info->minor = properties.minor;
  info->multiprocessors = properties.multiProcessorCount;
  info->driver = driver;
  return TCU_OK;
}

int enter(tcu_engine *e) {
  if (!e) return failed(TCU_ARGUMENT, "no engine");
  CHECK_CUDA(cudaSetDevice(e->device));
  return TCU_OK;
}

int enter_step(tcu_engine *e) {
  CHECK(enter(e));
  if (e->step.token_count == 0) return failed(TCU_ARGUMENT, "no step was begun");
  e->normed_layer = -1;
  return TCU_OK;
}

int enter_layer(tcu_engine *e, int layer) {
  CHECK(enter_step(e));
  if (layer < 0 || layer >= e->shape.layers || !e->layers[(size_t)layer].bound) return failed(TCU_ARGUMENT, "layer %d is not bound", layer);
  return TCU_OK;
}

/* What tcu_open does once there is an engine to close when it fails. */
static int open_engine(tcu_engine &e, const double *rope_frequencies) {
  CHECK_CUDA(cudaSetDevice(e.device));
  CHECK(check_code(e.device, e.starts_early));
  CHECK_CUDA(cudaDeviceGetAttribute(&e.multiprocessors, cudaDevAttrMultiProcessorCount, e.device));
  CHECK_CUDA(cudaDeviceGetAttribute(&e.shared_bytes, cudaDevAttrMaxSharedMemoryPerMultiprocessor, e.device));
  /* steps go first: uploads must not take their place */
  int least, greatest;
  CHECK_CUDA(cudaDeviceGetStreamPriorityRange(&least, &greatest));
  CHECK_CUDA(cudaStreamCreateWithPriority(&e.stream, cudaStreamNonBlocking, greatest));
  CHECK_CUDA(cudaStreamCreateWithPriority(&e.copy_stream, cudaStreamNonBlocking, least));
  for (cudaEvent_t &lane : e.lanes) CHECK_CUDA(cudaEventCreateWithFlags(&lane, cudaEventDisableTiming | cudaEventBlockingSync));
  CHECK_CUDA(cudaHostAlloc((void **)&e.words, sizeof(engine_words), cudaHostAllocMapped | cudaHostAllocPortable));
  memset(e.words, 0, sizeof(engine_words));
  CHECK_CUDA(cudaHostGetDevicePointer((void **)&e.device_words, e.words, 0));
  uint64_t address;
  CHECK(tcu_memory(&e, lay_out(e.shape, nullptr, e.b), &address));
  const uint64_t bytes = lay_out(e.shape, (char *)address, e.b);
  CHECK(tcu_clear(&e, address, bytes));
  if (e.shape.rotary > 0) {
    const size_t frequencies = sizeof(double) * (size_t)e.shape.rotary / 2;
    CHECK_CUDA(cudaMemcpyAsync(e.b.frequencies, rope_frequencies, frequencies, cudaMemcpyHostToDevice, e.stream));
    CHECK_CUDA(cudaStreamSynchronize(e.stream));
  }
  return TCU_OK;
}

/* Devices before sm_80 lack what the kernels are made of: asynchronous copies and i8 and bf16 tensor cores. */
static int check_device(int32_t device) {
  int devices, major, minor;
  CHECK_CUDA(cudaGetDeviceCount(&devices));
  if (device < 0 || device >= devices) return failed(TCU_ABSENT, "device %d of %d", device, devices);
  CHECK_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  CHECK_CUDA(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
  if (major < 8) return failed(TCU_ABSENT, "device %d has compute capability %d.%d, 8.0 is needed", device, major, minor);
  return TCU_OK;
}

int tcu_open(int32_t device, const tcu_shape *shape, const double *rope_frequencies, tcu_engine **engine) {
  if (!shape || !engine || (shape->rotary > 0 && !rope_frequencies)) return failed(TCU_ARGUMENT, "tcu_open: a null pointer");
  *engine = nullptr;
  const char *fault = shape_fault(*shape);
  if (fault) return failed(TCU_SHAPE, "tcu_open: %s", fault);
  CHECK(check_attention(*shape));
  CHECK(check_device(device));
  tcu_engine *e = new (std::nothrow) tcu_engine{};
  if (!e) return failed(TCU_MEMORY, "tcu_open: no host memory");
  e->device = device;
  e->shape = *shape;
  e->published_layer = e->normed_layer = -1;
  e->layers.resize((size_t)shape->layers);
  const int status = open_engine(*e, rope_frequencies);
  if (status != TCU_OK) {
    /* closing must not put its own text in the place of the cause */
    char cause[512];
    tcu_error_text(cause, sizeof cause);
    tcu_close(e);
    return failed(status, "%s", cause);
  }
  *engine = e;
  return TCU_OK;
}

/* Every part is given back, whatever became of the ones before; the first failure is told. */
int tcu_close(tcu_engine *e) {
  if (!e) return failed(TCU_ARGUMENT, "no engine");
  int status = enter(e);
  const auto give_back = [&status](cudaError_t error, const char *what) {
    if (error != cudaSuccess && status == TCU_OK) status = cuda_failed(error, what);
    cudaGetLastError();
  };
  if (e->words) __atomic_store_n(&e->words->closing, 1, __ATOMIC_RELEASE);
  if (e->capturing) {
    cudaGraph_t unfinished = nullptr;
    cudaStreamEndCapture(e->stream, &unfinished);
    if (unfinished) cudaGraphDestroy(unfinished);
    cudaGetLastError();
  }
  if (e->stream) give_back(cudaStreamSynchronize(e->stream), "cudaStreamSynchronize");
  if (e->copy_stream) give_back(cudaStreamSynchronize(e->copy_stream), "cudaStreamSynchronize");
  for (tcu_graph *graph : e->graphs) {
    give_back(cudaGraphExecDestroy(graph->exec), "cudaGraphExecDestroy");
    delete graph;
  }
  for (const registration &r : e->registrations) give_back(cudaHostUnregister(r.address), "cudaHostUnregister");
  for (const allocation &a : e->allocations) give_back(cudaFree(a.address), "cudaFree");
  if (e->words) give_back(cudaFreeHost(e->words), "cudaFreeHost");
  for (cudaEvent_t lane : e->lanes) {
    if (lane) give_back(cudaEventDestroy(lane), "cudaEventDestroy");
  }
  if (e->copy_stream) give_back(cudaStreamDestroy(e->copy_stream), "cudaStreamDestroy");
  if (e->stream) give_back(cudaStreamDestroy(e->stream), "cudaStreamDestroy");
  delete e;
  return status;
}

int tcu_is_idle(tcu_engine *e, int32_t *idle) {
  CHECK(enter(e));
  if (!idle) return failed(TCU_ARGUMENT, "tcu_is_idle: nowhere to put the result");
  *idle = 0;
  const cudaStream_t streams[] = {e->stream, e->copy_stream};
  for (cudaStream_t stream : streams) {
    const cudaError_t error = cudaStreamQuery(stream);
    if (error == cudaErrorNotReady) {
      cudaGetLastError(); /* not a failure, but the next check of a launch would see it */
      return TCU_OK;
    }
    if (error != cudaSuccess) return cuda_failed(error, "cudaStreamQuery");
  }
  *idle = 1;
  return TCU_OK;
}
