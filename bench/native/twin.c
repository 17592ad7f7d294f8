/*
 * The twin's process: reads lines from stdin, answers each with one line.
 *
 *     case FORMAT ROWS SAMPLE_ROWS COLUMNS TOKENS WEIGHTS X Y    loads a case: file WEIGHTS has SAMPLE_ROWS file rows, repeated to ROWS; X is
 *                                                                f32[tokens, columns]; writes y: f32[tokens, rows] to Y; answers "ok"
 *     time MS                                                    runs the case again and again; answers the median time of one product in ns
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "twin.h"

enum { CHUNK_TOKENS = 48, MAX_SAMPLES = 100000, PATH_BYTES = 4096 };

#define ENTRY(name) &FORMAT_##name,
static const struct format *const TABLE[] = {FORMATS(ENTRY)};

/* One matrix product. */
struct product {
  const struct format *format;
  int rows, columns, tokens;
  size_t panel_bytes, record_bytes;
  uint8_t *panels, *records, *scratch;
  float *y; /* f32[tokens, rows] */
};

static void fail(const char *what) {
  printf("error %s\n", what);
  fflush(stdout);
  exit(1);
}

static void *allocate(size_t bytes) {
  void *p = aligned_alloc(4096, (bytes + 8191) / 4096 * 4096);
  if (!p) fail("memory");
  return p;
}

static void *read_file(const char *path, size_t bytes) {
  FILE *file = fopen(path, "rb");
  void *data = allocate(bytes);
  if (!file || fread(data, 1, bytes, file) != bytes) fail("a file cannot be read");
  fclose(file);
  return data;
}

/* The scale that brings `count` values to eight bits. */
static float scale_of(const float *x, int count) {
  float most = 0;
  for (int i = 0; i < count; i++) most = fmaxf(most, fabsf(x[i]));
  return most / 127;
}
static int8_t quantized(float x, float scale) { return (int8_t)(scale > 0 ? lrintf(x / scale) : 0); }

static void quantize_32(struct record_32 *y, const float *x, int columns) {
  for (int b = 0; b < columns / 32; b++, y++, x += 32) {
    y->scale = scale_of(x, 32);
    y->sum = 0;
    for (int k = 0; k < 32; k++) y->sum += y->values[k] = quantized(x[k], y->scale);
  }
}

static void quantize_256(struct record_256 *y, const float *x, int columns) {
  for (int b = 0; b < columns / 256; b++, y++, x += 256) {
    y->scale = scale_of(x, 256);
    memset(y->sums, 0, sizeof y->sums);
    for (int k = 0; k < 256; k++) {
      const int8_t value = quantized(x[k], y->scale);
      y->values[k / 64 * 64 + k % 32 / 2 * 4 + k % 64 / 32 * 2 + k % 2] = value;
      y->sums[k / 64 * 4 + k % 32 / 16 * 2 + k % 64 / 32] += value;
    }
  }
}

static size_t record_bytes(enum activation activation, int columns) {
  switch (activation) {
    case ACTIVATION_32: return (size_t)columns / 32 * sizeof(struct record_32);
    case ACTIVATION_256: return (size_t)columns / 256 * sizeof(struct record_256);
    default: return (size_t)columns * sizeof(float);
  }
}

static void quantize(uint8_t *record, enum activation activation, const float *x, int columns) {
  if (activation == ACTIVATION_32) quantize_32((struct record_32 *)record, x, columns);
  else if (activation == ACTIVATION_256) quantize_256((struct record_256 *)record, x, columns);
  else memcpy(record, x, (size_t)columns * sizeof(float));
}

/* Within a chunk of tokens each panel is read once. */
static void run(const struct product *p) {
  float out[CHUNK_TOKENS * PANEL_ROWS];
  const uint8_t *x[CHUNK_TOKENS];
  for (int first = 0; first < p->tokens; first += CHUNK_TOKENS) {
    const int count = p->tokens - first < CHUNK_TOKENS ? p->tokens - first : CHUNK_TOKENS;
    for (int t = 0; t < count; t++) x[t] = p->records + (size_t)(first + t) * p->record_bytes;
    for (int row = 0; row < p->rows; row += PANEL_ROWS) {
      p->format->dot(out, p->panels + (size_t)(row / PANEL_ROWS) * p->panel_bytes, x, p->columns, count, p->scratch);
      for (int t = 0; t < count; t++) memcpy(p->y + (size_t)(first + t) * (size_t)p->rows + row, out + PANEL_ROWS * t, PANEL_ROWS * sizeof(float));
    }
  }
}

static void release(struct product *p) {
  free(p->panels);
  free(p->records);
  free(p->scratch);
  free(p->y);
}

static struct product make(const char *name, int rows, int sample_rows, int columns, int tokens, const char *weights, const char *activations) {
  struct product p = {.rows = rows, .columns = columns, .tokens = tokens};
  for (size_t i = 0; i < sizeof TABLE / sizeof *TABLE; i++)
    if (strcmp(TABLE[i]->name, name) == 0) p.format = TABLE[i];
  if (!p.format) fail("no such format");
  const size_t row_bytes = (size_t)(columns / p.format->elements) * (size_t)p.format->bytes;
  p.panel_bytes = (size_t)(columns / p.format->elements) * (size_t)p.format->panel_bytes;
  p.record_bytes = record_bytes(p.format->activation, columns);
  p.panels = allocate((size_t)(rows / PANEL_ROWS) * p.panel_bytes);
  p.records = allocate((size_t)tokens * p.record_bytes);
  p.scratch = allocate((size_t)columns * 64);
  p.y = allocate((size_t)tokens * (size_t)rows * sizeof(float));
  uint8_t *file = read_file(weights, (size_t)sample_rows * row_bytes);
  float *x = read_file(activations, (size_t)tokens * (size_t)columns * sizeof(float));
  for (int row = 0; row < rows; row += PANEL_ROWS)
    p.format->repack(p.panels + (size_t)(row / PANEL_ROWS) * p.panel_bytes, file + (size_t)(row % sample_rows) * row_bytes, columns);
  for (int t = 0; t < tokens; t++) quantize(p.records + (size_t)t * p.record_bytes, p.format->activation, x + (size_t)t * (size_t)columns, columns);
  free(file);
  free(x);
  return p;
}

static double now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Samples of at least 0.1 ms each. */
static double median_ns(const struct product *p, double ms) {
  static double samples[MAX_SAMPLES];
  int count = 0, repeats = 1;
  for (const double end = now_ns() + ms * 1e6; count < MAX_SAMPLES && (now_ns() < end || count < 3);) {
    const double start = now_ns();
    for (int i = 0; i < repeats; i++) run(p);
    const double taken = now_ns() - start;
    if (taken < 1e5) repeats *= 2;
    else samples[count++] = taken / repeats;
  }
  qsort(samples, (size_t)count, sizeof *samples, ascending);
  return samples[count / 2];
}

int main(void) {
  static char line[3 * PATH_BYTES + 256], name[32], weights[PATH_BYTES], x[PATH_BYTES], y[PATH_BYTES];
  struct product p = {0};
  while (fgets(line, sizeof line, stdin)) {
    int rows, sample_rows, columns, tokens;
    double ms;
    if (sscanf(line, "case %31s %d %d %d %d %4095s %4095s %4095s", name, &rows, &sample_rows, &columns, &tokens, weights, x, y) == 8) {
      release(&p);
      p = make(name, rows, sample_rows, columns, tokens, weights, x);
      run(&p);
      FILE *file = fopen(y, "wb");
      if (!file || fwrite(p.y, sizeof(float), (size_t)tokens * (size_t)rows, file) != (size_t)tokens * (size_t)rows) fail("a file cannot be written");
      fclose(file);
      printf("ok\n");
    } else if (p.format && sscanf(line, "time %lf", &ms) == 1) {
      printf("%.1f\n", median_ns(&p, ms));
    } else {
      fail("no such command");
    }
    fflush(stdout);
  }
  release(&p);
  return 0;
}
