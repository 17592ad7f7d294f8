/* Norms, and activations in the forms that weights want: the numbers of wasm/quantize.c. */
#include <math.h>
#include <string.h>
/* the header is C, which spells it so */
#define _Static_assert static_assert
#include "../../wasm/activations.h"
#include "engine.h"

static float largest(const float *x, int count) {
  float most = 0;
  for (int i = 0; i < count; i++) most = !(fabsf(x[i]) <= most) ? fabsf(x[i]) : most; /* a NaN stays */
  return most;
}

/* 127 / most, or 0 where that would overflow or has no meaning: then a NaN or infinite scale carries the damage on. */
static float inverse_scale(float most) { return most > 1e-35f ? 127 / most : 0; }

/* values: i8[count] = x * inverse to nearest even; returns their sum. */
static int quantize(int8_t *values, const float *x, int count, float inverse) {
  int sum = 0;
  for (int i = 0; i < count; i++) {
    const float scaled = nearbyintf(x[i] * inverse);
    values[i] = (int8_t)(scaled == scaled ? fminf(fmaxf(scaled, -128), 127) : 0);
    sum += values[i];
  }
  return sum;
}

/* The least factor with which 16 values up to `most_of_16` fit in 8 bits, when MAX_FACTOR is what the block's largest value needs. */
static int factor_for(float most_of_16, float most) {
  const float factor = ceilf(most_of_16 * MAX_FACTOR / most);
  return factor >= 1 ? factor < MAX_FACTOR ? (int)factor : MAX_FACTOR : 1;
}

/* 256 values in order, each 16 of them with a factor; returns the scale. */
static float quantize_256(int8_t *values, int *factors, int *sums, const float *x) {
  const float most = largest(x, 256), inverse = inverse_scale(most);
  for (int group = 0; group < 16; group++) {
    factors[group] = factor_for(largest(x + 16 * group, 16), most);
    sums[group] = quantize(values + 16 * group, x + 16 * group, 16, inverse * ((float)MAX_FACTOR / (float)factors[group]));
  }
  return most / (127 * MAX_FACTOR);
}

/* x: f32[count] becomes what values of a scale leave of it, for the next digit. */
static void keep_rest(float *x, const int8_t *values, float scale, int count) {
  for (int i = 0; i < count; i++) x[i] -= scale * (float)values[i];
}

static void make_q8x32(const quantized &y, size_t at, float *x, int columns) {
  for (int i = 0; i < columns; i += 32) {
    const float most = largest(x + i, 32), inverse = inverse_scale(most);
    for (int k = i; k < i + 32; k += GROUP) {
      const size_t group = (at + (size_t)k) / GROUP;
      const int sum = quantize(y.values + at + k, x + k, GROUP, inverse);
      y.scales[group] = most / 127;
      y.sums[group] = y.scales[group] * (float)sum;
      keep_rest(x + k, y.values + at + k, y.scales[group], GROUP);
    }
  }
}

static void make_q8x256(const quantized &y, size_t at, float *x, int columns) {
  for (int i = 0; i < columns; i += 256) {
    int factors[16], sums[16];
    const float scale = quantize_256(y.values + at + i, factors, sums, x + i);
    for (int g = 0; g < 16; g++) {
      const size_t group = (at + (size_t)i) / GROUP + (size_t)g;
      y.scales[group] = scale * (float)factors[g];
      y.sums[group] = y.scales[group] * (float)sums[g];
      keep_rest(x + i + g * GROUP, y.values + at + i + g * GROUP, y.scales[group], GROUP);
    }
  }
}

void make_forms(const activations &y, int forms, int columns, int tokens) {
  for (const int form : {FORM_Q8X32, FORM_Q8X256}) {
    for (int t = 0; t < ((forms & form) ? tokens : 0); t++) {
      const float *row = y.rows + (size_t)t * (size_t)columns;
      std::vector<float> rest(row, row + columns);
      for (int d = 0; d < y.digits; d++) {
        const size_t at = (size_t)(t * y.digits + d) * (size_t)columns;
        if (form == FORM_Q8X32) make_q8x32(y.q8x32, at, rest.data(), columns);
        else make_q8x256(y.q8x256, at, rest.data(), columns);
      }
    }
  }
}

void norm_row(float *y, const float *x, const float *weight, int columns, float epsilon) {
  float lanes[8] = {0}, sum = 0;
  for (int i = 0; i < columns; i += 8) {
    for (int lane = 0; lane < 8; lane++) lanes[lane] += x[i + lane] * x[i + lane];
  }
  for (const float lane : lanes) sum += lane;
  const float factor = 1 / sqrtf(sum / (float)columns + epsilon);
  for (int i = 0; i < columns; i++) y[i] = x[i] * factor * weight[i];
}

void norm_rows(const activations &y, int forms, const float *x, const float *weight, int columns, int tokens, float epsilon) {
  for (int t = 0; t < tokens; t++) norm_row(y.rows + (size_t)t * (size_t)columns, x + (size_t)t * (size_t)columns, weight, columns, epsilon);
  make_forms(y, forms, columns, tokens);
}

uint64_t record_bytes(int form, int columns, int digits) {
  if (form == FORM_ROWS) return (uint64_t)columns * 4;
  return (uint64_t)digits * (form == FORM_Q8X32 ? (uint64_t)columns / 32 * sizeof(activation_q8x32) : (uint64_t)columns / 256 * sizeof(activation_q8x256));
}

static void write_q8x32(activation_q8x32 *block, float *x, int columns) {
  for (int i = 0; i < columns; i += 32, block++) {
    const float most = largest(x + i, 32);
    block->sum = quantize(block->values, x + i, 32, inverse_scale(most));
    block->scale = most / 127;
    keep_rest(x + i, block->values, block->scale, 32);
  }
}

/* Where element `column` of a q8x256 record lies, and group `group` (wasm/activations.h). */
static int place_of(int column) {
  const int chunk = column / 64, late = column % 32 / 16, pair = column % 16 / 2;
  return 64 * chunk + 32 * late + 4 * pair + 2 * (column % 64 / 32) + column % 2;
}
static int place_of_group(int group) { return group / 4 * 4 + group % 2 * 2 + group % 4 / 2; }

static void write_q8x256(activation_q8x256 *block, float *x, int columns) {
  for (int i = 0; i < columns; i += 256, block++) {
    int8_t values[256];
    int factors[16], sums[16];
    block->scale = quantize_256(values, factors, sums, x + i);
    for (int k = 0; k < 256; k++) block->values[place_of(k)] = values[k];
    for (int g = 0; g < 16; g++) {
      block->factors[place_of_group(g)] = (int16_t)factors[g];
      block->sums[place_of_group(g)] = (int16_t)(sums[g] * factors[g]);
      keep_rest(x + i + g * GROUP, values + g * GROUP, block->scale * (float)factors[g], GROUP);
    }
  }
}

void write_record(uint8_t *record, int form, const float *x, int columns, int digits) {
  std::vector<float> rest(x, x + columns);
  for (int d = 0; d < digits; d++, record += record_bytes(form, columns, 1)) {
    if (form == FORM_Q8X32) write_q8x32((activation_q8x32 *)record, rest.data(), columns);
    else write_q8x256((activation_q8x256 *)record, rest.data(), columns);
  }
}
