/*
 * The weight formats, twin of src/abi/formats.ts: one row of FORMATS each, one struct per block as it lies in a GGUF file.
 * To add a format: a row here, its struct and scalar decoder in blocks.h, one kernel line in the formats_*.c of its family, a row in formats.ts.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

/* What activations are quantised to (activations.h); formats name the q8 that they are multiplied with, the q16 of the same blocks is two of those. */
enum activation { ACTIVATION_F32 = 0, ACTIVATION_Q8X32 = 1, ACTIVATION_Q8X256 = 2, ACTIVATION_Q16X32 = 3, ACTIVATION_Q16X256 = 4 };

/* X(name, ggml id, elements per block, bytes per block, bytes per block of an 8-row panel, bytes behind the blocks of a panel, activation) */
#define FORMATS(X)                                  \
  X(F32, 0, 1, 4, 32, 0, ACTIVATION_F32)            \
  X(F16, 1, 1, 2, 16, 48, ACTIVATION_F32)           \
  X(BF16, 30, 1, 2, 16, 0, ACTIVATION_F32)          \
  X(Q4_0, 2, 32, 18, 144, 0, ACTIVATION_Q8X32)      \
  X(Q4_1, 3, 32, 20, 160, 0, ACTIVATION_Q8X32)      \
  X(Q5_0, 6, 32, 22, 176, 0, ACTIVATION_Q8X32)      \
  X(Q5_1, 7, 32, 24, 192, 0, ACTIVATION_Q8X32)      \
  X(Q8_0, 8, 32, 34, 272, 0, ACTIVATION_Q8X32)      \
  X(IQ4_NL, 20, 32, 18, 144, 0, ACTIVATION_Q8X32)   \
  X(MXFP4, 39, 32, 17, 136, 0, ACTIVATION_Q8X32)    \
  X(Q2_K, 10, 256, 84, 672, 0, ACTIVATION_Q8X256)   \
  X(Q3_K, 11, 256, 110, 880, 0, ACTIVATION_Q8X256)  \
  X(Q4_K, 12, 256, 144, 1184, 0, ACTIVATION_Q8X256) \
  X(Q5_K, 13, 256, 176, 1440, 0, ACTIVATION_Q8X256) \
  X(Q6_K, 14, 256, 210, 1680, 0, ACTIVATION_Q8X256) \
  X(IQ4_XS, 23, 256, 136, 1104, 0, ACTIVATION_Q8X256)

enum { FORMAT_IDS = 64 }; /* ggml ids are below this */

/*
 * What the rest of the code knows about a format. `columns` is a whole number of blocks everywhere, scratch is 64-byte aligned.
 *
 * repack  writes the panel of `count` <= 8 file rows, missing ones as zeros; 0 when a weight or scale is not finite
 * unpack  y: f32[columns] = row `row` of a panel
 * prepare may be 0; else calls for `prepare_from` tokens or more, and for `prepare_most` at most unless that is 0, take the records that it makes of all
 *         tokens of the call, one after the other
 * dot     out: f32[tokens, 8] = the panel's 8 rows times `tokens` activation records x[t]
 * dot_pair  may be 0; else the same for two panels and UNPACK_FROM_TOKENS tokens or more (tiles.h); the second one's results are PAIR_STRIDE floats further on
 * decode  out: f32[STREAMS, 8] = the rows of several panels times one record; bit for bit what dot gives for each
 * decode_on may be 0; else out: f32[tokens, STREAMS, 8] = decode of some blocks of the panels for several tokens, whose sums go on from those in out
 */
struct format {
  int elements;
  int bytes;
  int panel_bytes, tail_bytes;
  enum activation activation;
  int prepare_from, prepare_most, prepared_bytes; /* bytes per block of a token */
  void (*prepare)(uint8_t *to, const uint8_t *const *records, int columns, int tokens);
  int (*repack)(uint8_t *panel, const uint8_t *rows, int columns, int count);
  void (*unpack)(float *y, const uint8_t *panel, int row, int columns, uint8_t *scratch);
  void (*dot)(float *out, const uint8_t *panel, const uint8_t *const *x, int columns, int tokens, uint8_t *scratch);
  void (*dot_pair)(float *out, const uint8_t *const *panels, const uint8_t *const *x, int columns, int tokens, uint8_t *scratch);
  void (*decode)(float *out, const uint8_t *const *panels, const uint8_t *x, int columns, uint8_t *scratch);
  void (*decode_on)(float *out, const uint8_t *const *panels, const uint8_t *const *x, int columns, int tokens);
};

/* The format with a ggml id, or 0. */
const struct format *format_by_id(int id);

/* One `const struct format` per row, defined by the kernels of its family, and its numbers as constants. */
#define DECLARE_FORMAT(name, id, elements, bytes, panel_bytes, tail_bytes, activation) \
  enum { name##_ELEMENTS = elements, name##_BYTES = bytes, name##_PANEL_BYTES = panel_bytes, name##_TAIL_BYTES = tail_bytes, name##_ACTIVATION = activation }; \
  extern const struct format format_##name;
FORMATS(DECLARE_FORMAT)
#undef DECLARE_FORMAT

/* The beginning of a format's struct: its row of the table. */
#define FORMAT_ROW(name) .elements = name##_ELEMENTS, .bytes = name##_BYTES, .panel_bytes = name##_PANEL_BYTES, \
  .tail_bytes = name##_TAIL_BYTES, .activation = name##_ACTIVATION

static inline size_t panel_size(const struct format *format, int columns) {
  return (size_t)(columns / format->elements) * (size_t)format->panel_bytes + (size_t)format->tail_bytes;
}
