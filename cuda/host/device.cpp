/* The device, and engines on it. */
#include <string.h>
#include <algorithm>
#include <new>
#include "engine.h"

static int check_device(int32_t index, const char *call) {
  if (is_lost()) return failed(TCU_LOST, "%s: the device was lost", call);
  if (fault_hits(FAULT_ABSENT)) return failed(TCU_ABSENT, "%s: there is no device", call);
  if (index != 0) return failed(TCU_ABSENT, "%s: there is no device %d", call, index);
  return TCU_OK;
}

int tcu_abi_version(int32_t *version) {
  if (!version) return failed(TCU_ARGUMENT, "tcu_abi_version: nowhere to put it");
  *version = TCU_ABI_VERSION;
  return TCU_OK;
}

int tcu_device_count(int32_t *count) {
  if (!count) return failed(TCU_ARGUMENT, "tcu_device_count: nowhere to put it");
  *count = 0;
  CHECK(check_device(0, "tcu_device_count"));
  *count = 1;
  return TCU_OK;
}

int tcu_device_info(int32_t index, tcu_device *info) {
  if (!info) return failed(TCU_ARGUMENT, "tcu_device_info: nowhere to put it");
  CHECK(check_device(index, "tcu_device_info"));
  *info = {};
  strcpy(info->name, "stand-in (no GPU)");
  device_memory(&info->bytes, &info->free_bytes);
  info->multiprocessors = 1;
  return TCU_OK;
}

int tcu_open(int32_t device, const tcu_shape *shape, const double *rope_frequencies, tcu_engine **engine) {
  if (!shape || !engine || (!rope_frequencies && shape->rotary > 0)) return failed(TCU_ARGUMENT, "tcu_open: a null pointer");
  *engine = nullptr;
  CHECK(check_device(device, "tcu_open"));
  if (const char *fault = shape_fault(*shape)) return failed(TCU_SHAPE, "tcu_open: %s", fault);
  buffers b;
  const uint64_t bytes = lay_out(*shape, nullptr, b);
  char *memory = device_allocate(bytes);
  if (!memory) return failed(TCU_MEMORY, "out of memory: the engine's buffers take %llu bytes", (unsigned long long)bytes);
  lay_out(*shape, memory, b);
  std::copy_n(rope_frequencies, shape->rotary / 2, b.frequencies);

  tcu_engine *e = new (std::nothrow) tcu_engine;
  if (!e) {
    device_free({memory, bytes});
    return failed(TCU_MEMORY, "tcu_open: no host memory");
  }
  e->shape = *shape;
  e->b = b;
  e->layers.resize((size_t)shape->layers);
  e->allocations.push_back({memory, bytes});
  *engine = e;
  return TCU_OK;
}

int tcu_close(tcu_engine *e) {
  if (!e) return failed(TCU_ARGUMENT, "tcu_close: no engine");
  e->closing = true;
  e->compute.close();
  e->copies.close();
  for (const piece &allocation : e->allocations) device_free(allocation);
  const int status = e->device_failure;
  if (status != TCU_OK) failed(status, "%s", e->failure_text.c_str());
  delete e;
  return status;
}
