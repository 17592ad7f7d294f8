/* The format table by ggml id. */
#include "formats.h"

static const struct format *const BY_ID[FORMAT_IDS] = {
#define ENTRY(name, id, elements, bytes, panel_bytes, tail_bytes, activation) [id] = &format_##name,
  FORMATS(ENTRY)
#undef ENTRY
};

const struct format *format_by_id(int id) { return id >= 0 && id < FORMAT_IDS ? BY_ID[id] : 0; }
