/**
 * What a header may claim before we believe that it is no model. Each limit is far above any published model; together they bound
 * the memory and time that a hostile file can cost. Every count is also held against the bytes that are left in the file.
 */

/** Key-value pairs. Real files have about 50. */
export const MAX_METADATA_PAIRS = 65_536

/** Array elements in all metadata together. The largest vocabularies need about 1 M (tokens, types, scores, merges). */
export const MAX_METADATA_ITEMS = 8_000_000

/** Bytes of one string value. Embedded tokenizer files reach 30 MB. */
export const MAX_STRING_BYTES = 64 * 1024 * 1024

/** Bytes of all strings together, keys included. */
export const MAX_STRING_BYTES_TOTAL = 256 * 1024 * 1024

/** Bytes of a metadata key, from the GGUF specification. */
export const MAX_KEY_BYTES = 65_535

/** Arrays inside arrays. No known file nests at all. */
export const MAX_ARRAY_DEPTH = 4

/** Tensors of a model, all shards together. The largest have about 2,000 (old files with a tensor per expert: 20,000). */
export const MAX_TENSORS = 65_536

/** Bytes of a tensor's name. ggml allows 63. */
export const MAX_TENSOR_NAME_BYTES = 255

/** Dimensions of a tensor, from the GGUF specification. */
export const MAX_DIMENSIONS = 4

/** `general.alignment`. Files use 32, or a page. */
export const MAX_ALIGNMENT = 1024 * 1024

/** The alignment of files that do not state one. */
export const DEFAULT_ALIGNMENT = 32
