/** Numbers of the GGUF file format. Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md */

/** The file's first four bytes, "GGUF", as a little-endian number. */
export const MAGIC = 0x46554747

/** Value types by name. */
export const VALUE_TYPES = {
  u8: 0,
  i8: 1,
  u16: 2,
  i16: 3,
  u32: 4,
  i32: 5,
  f32: 6,
  bool: 7,
  string: 8,
  array: 9,
  u64: 10,
  i64: 11,
  f64: 12,
} as const

/** The name of a metadata value type. */
export type ValueType = keyof typeof VALUE_TYPES

/** The fewest bytes that a value of type `id` takes in a file, by id: what a claimed count is held against. */
export const MIN_VALUE_BYTES: readonly number[] = [1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8]

/** The fewest bytes of a key-value pair: key length, a one-byte key, type, value. */
export const MIN_PAIR_BYTES = 8 + 1 + 4 + 1

/** The fewest bytes of a tensor's entry: name length, a one-byte name, dimension count, one dimension, format, offset. */
export const MIN_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8

/** `bytes` rounded up to a multiple of `alignment`, a power of two. Safe beyond 2^32. */
export function align(bytes: number, alignment: number): number {
  return Math.ceil(bytes / alignment) * alignment
}
