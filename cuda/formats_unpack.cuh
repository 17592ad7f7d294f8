/* `weights` of every format: the second half of formats.cuh, which includes it. */
#pragma once

template <> struct weights<FORMAT_F32> : format_row<FORMAT_F32> {
  static HD float value(const uint8_t *row, int k) { return ((const float *)row)[k]; }
};

template <> struct weights<FORMAT_F16> : format_row<FORMAT_F16> {
  static HD float value(const uint8_t *row, int k) { return half_to_float(((const uint16_t *)row)[k]); }
};

template <> struct weights<FORMAT_BF16> : format_row<FORMAT_BF16> {
  static HD float value(const uint8_t *row, int k) { return bfloat_to_float(((const uint16_t *)row)[k]); }
};

/* Blocks of 32: group 0 has the low nibbles, group 1 the high ones. */
template <> struct weights<FORMAT_Q4_0> : format_row<FORMAT_Q4_0> {
  enum { HAS_MINIMUM = 0 };
  static HD void unpack(const uint8_t *block, int group, int32_t (&values)[4], float &scale, float &minimum) {
    uint32_t words[4];
    load_words<2>(block + 2, words);
    UNROLL for (int i = 0; i < 4; i++) values[i] = (int32_t)subtract_bytes(words[i] >> 4 * group & 0x0f0f0f0f, 0x08080808);
    scale = half_to_float(load_u16(block));
    minimum = 0;
  }
};

template <> struct weights<FORMAT_Q4_1> : format_row<FORMAT_Q4_1> {
  enum { HAS_MINIMUM = 1 };
  static HD void unpack(const uint8_t *block, int group, int32_t (&values)[4], float &scale, float &minimum) {
    uint32_t words[4];
    load_words<4>(block + 4, words);
    UNROLL for (int i = 0; i < 4; i++) values[i] = (int32_t)(words[i] >> 4 * group & 0x0f0f0f0f);
    scale = half_to_float(load_u16(block));
    minimum = -half_to_float(load_u16(block + 2));
  }
};

template <> struct weights<FORMAT_Q5_0> : format_row<FORMAT_Q5_0> {
  enum { HAS_MINIMUM = 0 };
  static HD void unpack(const uint8_t *block, int group, int32_t (&values)[4], float &scale, float &minimum) {
    uint32_t words[5];
    load_words<2>(block + 2, words);
    UNROLL for (int i = 0; i < 4; i++) {
      const uint32_t quants = (words[i + 1] >> 4 * group & 0x0f0f0f0f) | spread_bits(words[0], 16 * group + 4 * i) << 4;
      values[i] = (int32_t)subtract_bytes(quants, 0x10101010);
    }
    scale = half_to_float(load_u16(block));
    minimum = 0;
  }
};

template <> struct weights<FORMAT_Q5_1> : format_row<FORMAT_Q5_1> {
  enum { HAS_MINIMUM = 1 };
  static HD void unpack(const uint8_t *block, int group, int32_t (&values)[4], float &scale, float &minimum) {
    uint32_t words[5];
    load_words<4>(block + 4, words);
    UNROLL for (int i = 0; i < 4; i++) values[i] = (int32_t)((words[i + 1] >> 4 * group & 0x0f0f0f0f) | spread_bits(words[0], 16 * group + 4 * i) << 4);
    scale = half_to_float(load_u16(block));
    minimum = -half_to_float(load_u16(block + 2));
  }
};

template <> struct weights<FORMAT_Q8_0> : format_row<FORMAT_Q8_0> {
  enum { HAS_MINIMUM = 0 };
  static HD void unpack(const uint8_t *block, int group, int32_t (&values)[4], float &scale, float &minimum) {
    uint32_t words[4];
    load_words<2>(block + 2 + 16 * group, words);
    UNROLL for (int i = 0; i < 4; i++) values[i] = (int32_t)words[i];
    scale = half_to_float(load_u16(block));
    minimum = 0;
  }
};

template <> struct weights<FORMAT_IQ4_NL> : format_row<FORMAT_IQ4_NL> {
  enum { HAS_MINIMUM = 0 };
  static HD void unpack(const uint8_t *block, int group, int32_t (&values)[4], float &scale, float &minimum) {
    const byte_table table = PACK_TABLE(IQ4_NL_VALUES(0));
    uint32_t words[4];
    load_words<2>(block + 2, words);
    UNROLL for (int i = 0; i < 4; i++) values[i] = (int32_t)lookup_nibbles(table, words[i], group);
    scale = half_to_float(load_u16(block));
    minimum = 0;
  }
};

/* scale = 2^(e - 128); e of 0 and 1 are subnormal as f32. */
template <> struct weights<FORMAT_MXFP4> : format_row<FORMAT_MXFP4> {
  enum { HAS_MINIMUM = 0 };
  static HD void unpack(const uint8_t *block, int group, int32_t (&values)[4], float &scale, float &minimum) {
    const byte_table table = PACK_TABLE(MXFP4_VALUES(0));
    uint32_t words[4];
    load_words<1>(block + 1, words);
    UNROLL for (int i = 0; i < 4; i++) values[i] = (int32_t)lookup_nibbles(table, words[i], group);
    const uint32_t e = block[0];
    scale = float_of_bits(e < 2 ? (e + 1) << 21 : (e - 1) << 23);
    minimum = 0;
  }
};

/* Each half of 128 has 32 bytes with two bits of every quarter; a group is 16 of those bytes. */
HD int two_bits_at(int group) { return group / 8 * 32 + group % 2 * 16; }
HD int two_bits_shift(int group) { return group % 8 / 2 * 2; }

template <> struct weights<FORMAT_Q2_K> : format_row<FORMAT_Q2_K> {
  enum { HAS_MINIMUM = 1 };
  static HD void unpack(const uint8_t *block, int group, int32_t (&values)[4], float &scale, float &minimum) {
    uint32_t words[4];
    load_words<4>(block + 16 + two_bits_at(group), words);
    UNROLL for (int i = 0; i < 4; i++) values[i] = (int32_t)(words[i] >> two_bits_shift(group) & 0x03030303);
    scale = half_to_float(load_u16(block + 80)) * (float)(block[group] & 15);
    minimum = half_to_float(load_u16(block + 82)) * (float)(block[group] >> 4);
  }
};

template <> struct weights<FORMAT_Q3_K> : format_row<FORMAT_Q3_K> {
  enum { HAS_MINIMUM = 0 };
  static HD void unpack(const uint8_t *block, int group, int32_t (&values)[4], float &scale, float &minimum) {
    uint32_t words[4], thirds[4];
    load_words<2>(block + 32 + two_bits_at(group), words);
    load_words<2>(block + group % 2 * 16, thirds);
    UNROLL for (int i = 0; i < 4; i++) {
      const uint32_t quants = (words[i] >> two_bits_shift(group) & 0x03030303) | (thirds[i] >> group / 2 & 0x01010101) << 2;
      values[i] = (int32_t)subtract_bytes(quants, 0x04040404);
    }
    scale = half_to_float(load_u16(block + 108)) * (float)(scale_q3_k((const block_q3_k *)block, group) - 32);
    minimum = 0;
  }
};

template <> struct weights<FORMAT_Q4_K> : format_row<FORMAT_Q4_K> {
  enum { HAS_MINIMUM = 1 };
  static HD void unpack(const uint8_t *block, int group, int32_t (&values)[4], float &scale, float &minimum) {
    uint32_t words[4];
    load_words<4>(block + 16 + group / 4 * 32 + group % 2 * 16, words);
    UNROLL for (int i = 0; i < 4; i++) values[i] = (int32_t)(words[i] >> group / 2 % 2 * 4 & 0x0f0f0f0f);
    scale = half_to_float(load_u16(block)) * (float)scale_of_12(block + 4, group / 2);
    minimum = half_to_float(load_u16(block + 2)) * (float)minimum_of_12(block + 4, group / 2);
  }
};

template <> struct weights<FORMAT_Q5_K> : format_row<FORMAT_Q5_K> {
  enum { HAS_MINIMUM = 1 };
  static HD void unpack(const uint8_t *block, int group, int32_t (&values)[4], float &scale, float &minimum) {
    uint32_t words[4], fifths[4];
    load_words<4>(block + 48 + group / 4 * 32 + group % 2 * 16, words);
    load_words<4>(block + 16 + group % 2 * 16, fifths);
    UNROLL for (int i = 0; i < 4; i++) {
      values[i] = (int32_t)((words[i] >> group / 2 % 2 * 4 & 0x0f0f0f0f) | (fifths[i] >> group / 2 & 0x01010101) << 4);
    }
    scale = half_to_float(load_u16(block)) * (float)scale_of_12(block + 4, group / 2);
    minimum = half_to_float(load_u16(block + 2)) * (float)minimum_of_12(block + 4, group / 2);
  }
};

template <> struct weights<FORMAT_Q6_K> : format_row<FORMAT_Q6_K> {
  enum { HAS_MINIMUM = 0 };
  static HD void unpack(const uint8_t *block, int group, int32_t (&values)[4], float &scale, float &minimum) {
    const int half = group / 8, quarter = group % 8 / 2, at = group % 2 * 16;
    uint32_t words[4], tops[4];
    load_words<2>(block + half * 64 + quarter % 2 * 32 + at, words);
    load_words<2>(block + 128 + half * 32 + at, tops);
    UNROLL for (int i = 0; i < 4; i++) {
      const uint32_t quants = (words[i] >> quarter / 2 * 4 & 0x0f0f0f0f) | (tops[i] >> quarter * 2 & 0x03030303) << 4;
      values[i] = (int32_t)subtract_bytes(quants, 0x20202020);
    }
    scale = half_to_float(load_u16(block + 208)) * (float)(int8_t)block[192 + group];
    minimum = 0;
  }
};

template <> struct weights<FORMAT_IQ4_XS> : format_row<FORMAT_IQ4_XS> {
  enum { HAS_MINIMUM = 0 };
  static HD void unpack(const uint8_t *block, int group, int32_t (&values)[4], float &scale, float &minimum) {
    const byte_table table = PACK_TABLE(IQ4_NL_VALUES(0));
    uint32_t words[4];
    load_words<4>(block + 8 + group / 2 * 16, words);
    UNROLL for (int i = 0; i < 4; i++) values[i] = (int32_t)lookup_nibbles(table, words[i], group % 2);
    scale = half_to_float(load_u16(block)) * (float)(scale_iq4_xs((const block_iq4_xs *)block, group / 2) - 32);
    minimum = 0;
  }
};
