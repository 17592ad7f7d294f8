/* What a step works on, to host memory and back. */
#include <string.h>
#include "engine.h"

/* Where the step's rows lie, and how many bytes there are. */
static int find_rows(const tcu_engine &e, const char *what, int rows, const void *host, void **device, uint64_t &bytes) {
  const tcu_shape &s = e.shape;
  if (rows < TCU_X || rows > TCU_EXPERT_WEIGHTS || !host) return failed(TCU_ARGUMENT, "%s: no host memory, or no rows %d", what, rows);
  if (rows == TCU_ROUTED && !s.device_experts) return failed(TCU_ARGUMENT, "%s: there are no experts on the device", what);
  void *const places[] = {e.b.x, e.b.shared, e.b.routed, e.b.expert_ids, e.b.expert_weights};
  *device = places[rows];
  bytes = (uint64_t)e.step.token_count * (uint64_t)(rows < TCU_EXPERT_IDS ? s.hidden : s.experts_used) * 4;
  return check_registered(e, host, bytes, what);
}

static void queue_copy(tcu_engine &e, void *to, const void *from, uint64_t bytes) {
  queue_work(e, [&e, to, from, bytes] {
    if (e.closing || e.step_failure != TCU_OK || e.device_failure != TCU_OK) return;
    memcpy(to, from, bytes);
  });
}

int tcu_read_rows(tcu_engine *e, int32_t rows, void *host) {
  CHECK(enter_step(e));
  void *device = nullptr;
  uint64_t bytes = 0;
  CHECK(find_rows(*e, "tcu_read_rows", rows, host, &device, bytes));
  queue_copy(*e, host, device, bytes);
  return TCU_OK;
}

int tcu_write_rows(tcu_engine *e, int32_t rows, const void *host) {
  CHECK(enter_step(e));
  void *device = nullptr;
  uint64_t bytes = 0;
  if (rows == TCU_EXPERT_IDS) return failed(TCU_ARGUMENT, "tcu_write_rows: experts are not chosen here");
  CHECK(find_rows(*e, "tcu_write_rows", rows, host, &device, bytes));
  queue_copy(*e, device, host, bytes);
  return TCU_OK;
}
