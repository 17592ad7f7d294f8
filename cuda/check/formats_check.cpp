/*
 * Compares every format's `unpack` and `value` with the scalar decoders, on the CPU:
 *     g++ -std=c++17 -O2 -o formats_check check/formats_check.cpp && ./formats_check
 */
#include <stdio.h>
#include "reference.h"

static int failures = 0;

template <int FORMAT> static void check_quantized(const char *name, random_source &random) {
  typedef weights<FORMAT> w;
  alignas(16) uint8_t block[256];
  for (int round = 0; round < 2000; round++) {
    random_weights(FORMAT, block, w::BYTES, w::BYTES, random);
    if (FORMAT == FORMAT_MXFP4 && round < 255) block[0] = (uint8_t)round;
    for (int group = 0; group < w::ELEMENTS / 16; group++) {
      int32_t values[4];
      float scale, minimum;
      w::unpack(block, group, values, scale, minimum);
      for (int i = 0; i < 16; i++) {
        const double got = (double)scale * (int8_t)(values[i / 4] >> 8 * (i % 4)) - (double)minimum;
        const double want = weight_reference<FORMAT>(block, 16 * group + i);
        if (got == want && (w::HAS_MINIMUM || minimum == 0)) continue;
        printf("%s round %d group %d element %d: %g, expected %g\n", name, round, group, i, got, want);
        failures++;
        return;
      }
    }
  }
  printf("%-6s ok\n", name);
}

template <int FORMAT> static void check_float(const char *name) {
  for (uint32_t h = 0; h < 0x10000; h++) {
    if (FORMAT == FORMAT_F16 ? !f16_is_finite((uint16_t)h) : (h & 0x7f80) == 0x7f80) continue;
    const uint32_t row[2] = {FORMAT == FORMAT_F32 ? h << 16 : h << 16 | h, FORMAT == FORMAT_F32 ? h << 16 : h};
    if ((double)weights<FORMAT>::value((const uint8_t *)row, 1) == weight_reference<FORMAT>((const uint8_t *)row, 1)) continue;
    printf("%s %04x differs\n", name, h);
    failures++;
    return;
  }
  printf("%-6s ok\n", name);
}

int main() {
  random_source random = {88172645463325252ull};
#define CHECK_FLOAT(name, ...) check_float<FORMAT_##name>(#name);
#define CHECK_QUANTIZED(name, ...) check_quantized<FORMAT_##name>(#name, random);
  FLOAT_FORMATS(CHECK_FLOAT)
  QUANTIZED_FORMATS(CHECK_QUANTIZED)
  return failures != 0;
}
