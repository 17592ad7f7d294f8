/* The text of the last failure, and what an error of CUDA means for an engine. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "engine.cuh"

namespace {

thread_local char text[1024];

/* Errors that say: this machine, driver or device cannot run the library at all. */
bool says_absent(cudaError_t error) {
  switch (error) {
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorInvalidDevice:
    case cudaErrorStubLibrary:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorSystemNotReady:
    case cudaErrorCompatNotSupportedOnDevice:
    case cudaErrorDeviceUninitialized:
    case cudaErrorInitializationError:
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorUnsupportedPtxVersion:
    case cudaErrorDevicesUnavailable:
      return true;
    default:
      return false;
  }
}

/*
 * After an error that sticks (an illegal address, say) every call gives the same one: a harmless call tells. The context is then reset, which takes
 * every engine on the device with it; they were lost already.
 */
int status_after(cudaError_t error) {
  if (says_absent(error)) return TCU_ABSENT;
  if (error == cudaErrorMemoryAllocation) return TCU_MEMORY;
  size_t available, all;
  if (cudaMemGetInfo(&available, &all) == cudaSuccess) return TCU_DEVICE;
  cudaDeviceReset();
  cudaGetLastError();
  if (cudaFree(nullptr) == cudaSuccess && cudaMemGetInfo(&available, &all) == cudaSuccess) return TCU_DEVICE;
  cudaGetLastError();
  return TCU_LOST;
}

} // namespace

int failed(int status, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  return status;
}

int cuda_failed(cudaError_t error, const char *what) {
  cudaGetLastError(); /* or the next call that is checked reports this one again */
  const int status = status_after(error);
  const char *ending = status == TCU_LOST ? "; the device did not come back" : "";
  return failed(status, "%s: %s, in %s%s", cudaGetErrorName(error), cudaGetErrorString(error), what, ending);
}

int tcu_error_text(char *into, int32_t bytes) {
  if (!into || bytes <= 0) return TCU_ARGUMENT;
  strncpy(into, text, (size_t)bytes - 1);
  into[bytes - 1] = 0;
  return TCU_OK;
}
