/* "Device" memory, which is counted as if it were scarce; registered host memory; copies. */
#include <stdlib.h>
#include <string.h>
#include <algorithm>
#include "engine.h"

enum { ALIGNMENT = 256, PAGE = 4096 };

static std::atomic<uint64_t> taken{0};

static uint64_t limit() {
  const char *text = getenv("TANDEM_HOST_DEVICE_BYTES");
  return text && *text ? strtoull(text, nullptr, 10) : (uint64_t)64 << 30;
}

void device_memory(uint64_t *bytes, uint64_t *free_bytes) {
  *bytes = limit();
  *free_bytes = *bytes - std::min(*bytes, taken.load());
}

/* The beginning is filled with NaN, whatever it is read as: contents are undefined, and who relies on them shall see it. */
static void fill_undefined(char *memory, uint64_t bytes) { memset(memory, 0xff, std::min(bytes, (uint64_t)16 << 20)); }

static uint64_t rounded(uint64_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

char *device_allocate(uint64_t bytes) {
  const uint64_t most = limit(), size = rounded(bytes);
  const uint64_t before = taken.fetch_add(size);
  char *memory = size >= bytes && before <= most && size <= most - before ? (char *)aligned_alloc(ALIGNMENT, size) : nullptr;
  if (!memory) taken -= size;
  else fill_undefined(memory, bytes);
  return memory;
}

void device_free(const piece &allocation) {
  free(allocation.address);
  taken -= rounded(allocation.bytes);
}

static bool lies_in(const std::vector<piece> &pieces, uint64_t address, uint64_t bytes) {
  return std::any_of(pieces.begin(), pieces.end(), [&](const piece &p) {
    const uint64_t begin = (uint64_t)p.address;
    return address >= begin && bytes <= p.bytes && address - begin <= p.bytes - bytes;
  });
}

bool owns(const tcu_engine &e, uint64_t address, uint64_t bytes) { return lies_in(e.allocations, address, bytes); }

int check_registered(const tcu_engine &e, const void *address, uint64_t bytes, const char *what) {
  if (!address || lies_in(e.registrations, (uint64_t)address, bytes)) return TCU_OK;
  return failed(TCU_ARGUMENT, "%s: %llu bytes at %p are not in registered host memory", what, (unsigned long long)bytes, address);
}

int tcu_register(tcu_engine *e, void *address, uint64_t bytes) {
  CHECK(enter(e));
  if (!address || bytes == 0) return failed(TCU_ARGUMENT, "tcu_register: no memory");
  if ((uint64_t)address % PAGE != 0 || bytes % PAGE != 0) return failed(TCU_ARGUMENT, "tcu_register: not on whole pages of 4096 bytes");
  for (const piece &p : e->registrations) {
    const bool overlaps = (char *)address < p.address + p.bytes && p.address < (char *)address + bytes;
    if (overlaps) return failed(TCU_DEVICE, "tcu_register: part or all of it is already registered");
  }
  e->registrations.push_back({(char *)address, bytes});
  return TCU_OK;
}

int tcu_memory(tcu_engine *e, uint64_t bytes, uint64_t *address) {
  CHECK(enter(e));
  if (!address || bytes == 0) return failed(TCU_ARGUMENT, "tcu_memory: no bytes, or nowhere to put the address");
  *address = 0;
  char *memory = fault_hits(FAULT_MEMORY) ? nullptr : device_allocate(bytes);
  if (!memory) {
    uint64_t all, left;
    device_memory(&all, &left);
    return failed(TCU_MEMORY, "out of memory: asked for %llu bytes, %llu of %llu are free", (unsigned long long)bytes, (unsigned long long)left,
                  (unsigned long long)all);
  }
  e->allocations.push_back({memory, bytes});
  *address = (uint64_t)memory;
  return TCU_OK;
}

int tcu_clear(tcu_engine *e, uint64_t address, uint64_t bytes) {
  CHECK(enter(e));
  if (!owns(*e, address, bytes)) return failed(TCU_ARGUMENT, "tcu_clear: not the engine's memory");
  e->compute.queue([=] { memset((void *)address, 0, bytes); });
  return e->compute.wait(e->compute.newest(), e->shape.deadline_ms) ? TCU_OK : failed(TCU_TIMEOUT, "tcu_clear: the device does not answer");
}

int tcu_upload(tcu_engine *e, int32_t lane, uint64_t address, const void *host, uint64_t bytes) {
  CHECK(enter(e));
  if (lane < 0 || lane >= UPLOAD_LANES) return failed(TCU_ARGUMENT, "tcu_upload: lane %d", lane);
  if (!host || !owns(*e, address, bytes)) return failed(TCU_ARGUMENT, "tcu_upload: no source, or not the engine's memory");
  CHECK(check_registered(*e, host, bytes, "tcu_upload"));
  e->lanes[lane] = e->copies.queue([=] { memcpy((void *)address, host, bytes); });
  return TCU_OK;
}

int tcu_upload_wait(tcu_engine *e, int32_t lane) {
  CHECK(enter(e));
  if (lane < 0 || lane >= UPLOAD_LANES) return failed(TCU_ARGUMENT, "tcu_upload_wait: lane %d", lane);
  return e->copies.wait(e->lanes[lane], e->shape.deadline_ms) ? TCU_OK : failed(TCU_TIMEOUT, "tcu_upload_wait: the device does not answer");
}
