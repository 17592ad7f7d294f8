/** What a model file is once it has been opened and checked. Types only. */
import type { FormatName } from '../abi/formats.ts'

/** A metadata value. 64-bit integers become numbers when they are safe integers, else bigints; arrays are homogeneous. */
export type MetadataValue = string | number | bigint | boolean | readonly MetadataValue[]

/** Metadata by full key, for instance `glm4moe.block_count`. */
export type Metadata = ReadonlyMap<string, MetadataValue>

/** One tensor, wherever its bytes are. */
export interface TensorInfo {
  readonly name: string
  readonly format: FormatName
  /** GGUF order: the contiguous dimension (columns) first. One to four dimensions. */
  readonly shape: readonly number[]
  /** Size of the data in bytes. */
  readonly bytes: number
  /** Index into `ModelFile.paths`. */
  readonly shard: number
  /** Absolute byte offset of the data in that shard. */
  readonly offset: number
}

/** An opened, validated GGUF model: one file, or all shards of a split one. Owns no file handle. */
export interface ModelFile {
  /** Shards in order; one entry for a single file. */
  readonly paths: readonly string[]
  readonly version: number
  readonly metadata: Metadata
  readonly tensors: ReadonlyMap<string, TensorInfo>
  /** Sum of all shards' sizes. */
  readonly bytes: number
}
