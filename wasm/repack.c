/* repack, dequantize_rows: from a file's rows to panels, and from panels to f32. */
#include "formats.h"
#include "kernels.h"

int repack(int id, uint8_t *panels, const uint8_t *file_rows, int columns, int rows) {
  const struct format *format = format_by_id(id);
  if (!format) return STATUS_FORMAT;
  if (columns <= 0 || columns % format->elements != 0 || rows < 0) return STATUS_SHAPE;
  const size_t row_bytes = (size_t)(columns / format->elements) * (size_t)format->bytes;
  for (int r = 0; r < rows; r += PANEL_ROWS, panels += panel_size(format, columns), file_rows += PANEL_ROWS * row_bytes) {
    const int count = rows - r < PANEL_ROWS ? rows - r : PANEL_ROWS;
    if (!format->repack(panels, file_rows, columns, count)) return STATUS_NOT_FINITE;
  }
  return STATUS_OK;
}

int dequantize_rows(int id, float *y, const uint8_t *panels, const int32_t *ids, int columns, int count, uint8_t *scratch) {
  const struct format *format = format_by_id(id);
  if (!format) return STATUS_FORMAT;
  if (columns <= 0 || columns % format->elements != 0 || count < 0) return STATUS_SHAPE;
  for (int i = 0; i < count; i++, y += columns) {
    const uint8_t *panel = panels + (size_t)(ids[i] / PANEL_ROWS) * panel_size(format, columns);
    format->unpack(y, panel, ids[i] % PANEL_ROWS, columns, scratch);
  }
  return STATUS_OK;
}
