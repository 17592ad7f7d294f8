/* wasm/quantize.c's records and wasm/routing.c's choice as plain scalar code, for stages_check.cu. */
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>
#include <vector>

/* Largest |x|, NaN when any is. */
inline float largest_reference(const float *x, int count) {
  float most = 0;
  for (int i = 0; i < count; i++) most = isnan(most) || isnan(x[i]) ? NAN : fmaxf(most, fabsf(x[i]));
  return most;
}

inline float inverse_reference(float most) { return most > 1e-35f ? 127 / most : 0; }

inline int8_t value_reference(float x, float inverse) {
  const float scaled = nearbyintf(x * inverse);
  return isnan(scaled) ? 0 : (int8_t)fminf(fmaxf(scaled, -128), 127);
}

/* records: columns / 32 times i8[32], f32 scale, i32 sum. x becomes what they leave of it. */
inline void q8x32_reference(uint8_t *record, float *x, int columns) {
  for (int i = 0; i < columns; i += 32, record += 40, x += 32) {
    const float most = largest_reference(x, 32), inverse = inverse_reference(most), scale = most / 127;
    int32_t sum = 0;
    for (int k = 0; k < 32; k++) {
      const int8_t value = value_reference(x[k], inverse);
      record[k] = (uint8_t)value;
      sum += value;
      x[k] -= scale * (float)value;
    }
    memcpy(record + 32, &scale, 4);
    memcpy(record + 36, &sum, 4);
  }
}

/* records: columns / 256 times i8[256], i16[16] sums, i16[16] factors, f32 scale, in the order that wasm/activations.h tells. x becomes what they leave of it. */
inline void q8x256_reference(uint8_t *record, float *x, int columns) {
  for (int i = 0; i < columns; i += 256, record += 324, x += 256) {
    const float most = largest_reference(x, 256), inverse = inverse_reference(most), scale = most / (127 * 8);
    int16_t sums[16], factors[16];
    for (int group = 0; group < 16; group++) {
      /* record order a0.., b0.., a16.., b16..: bit 0 is b, bit 1 the later half */
      const int chunk = group / 4, begin = 64 * chunk + 32 * (group & 1) + 16 * (group >> 1 & 1);
      const float share = ceilf(largest_reference(x + begin, 16) * 8 / most);
      const int factor = isnan(share) || share < 1 ? 1 : share > 8 ? 8 : (int)share;
      int sum = 0;
      for (int k = 0; k < 16; k++) {
        const int8_t value = value_reference(x[begin + k], inverse * (8.0f / (float)factor));
        record[64 * chunk + 32 * (group >> 1 & 1) + k / 2 * 4 + 2 * (group & 1) + k % 2] = (uint8_t)value;
        sum += value;
        x[begin + k] -= scale * (float)factor * (float)value;
      }
      sums[group] = (int16_t)(sum * factor);
      factors[group] = (int16_t)factor;
    }
    memcpy(record + 256, sums, 32);
    memcpy(record + 288, factors, 32);
    memcpy(record + 320, &scale, 4);
  }
}

/* One token; gating 1 softmax, 2 sigmoid. */
inline void route_reference(int32_t *ids, float *weights, const float *logits, const float *bias, int gating, bool normalize, float scale, int experts,
                            int used) {
  std::vector<double> gates(experts);
  double most = -INFINITY, total = 0;
  for (int e = 0; e < experts; e++) most = fmax(most, logits[e]);
  for (int e = 0; e < experts; e++) {
    gates[e] = gating == 2 ? 1 / (1 + exp(-(double)logits[e])) : exp(logits[e] - most);
    total += gates[e];
  }
  std::vector<bool> chosen(experts);
  for (int i = 0; i < used; i++) {
    int best = -1;
    float best_rank = 0;
    for (int e = 0; e < experts; e++) {
      float rank = (float)(gating == 2 ? gates[e] : gates[e] / total) + (bias ? bias[e] : 0);
      if (isnan(rank)) rank = -INFINITY;
      if (!chosen[e] && (best < 0 || rank > best_rank)) best = e, best_rank = rank;
    }
    chosen[best] = true;
  }
  double sum = 0;
  for (int e = 0, i = 0; e < experts; e++) {
    if (!chosen[e]) continue;
    ids[i++] = e;
    sum += gating == 2 ? gates[e] : gates[e] / total;
  }
  if (sum < 6.103515625e-5) sum = 6.103515625e-5;
  for (int i = 0; i < used; i++) {
    const double gate = gating == 2 ? gates[ids[i]] : gates[ids[i]] / total;
    weights[i] = (float)((normalize ? gate / sum : gate) * (scale == 0 ? 1 : scale));
  }
}
