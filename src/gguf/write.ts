/** Writes GGUF files: metadata with explicit types, tensor data streamed from the caller. */
import { open, rename, rm } from 'node:fs/promises'
import type { FileHandle } from 'node:fs/promises'
import { FORMATS, rowBytes } from '../abi/formats.ts'
import type { FormatName } from '../abi/formats.ts'
import { TandemError } from '../errors.ts'
import { align, MAGIC, VALUE_TYPES } from './layout.ts'
import type { ValueType } from './layout.ts'
import { DEFAULT_ALIGNMENT } from './limits.ts'
import { access } from './reader.ts'

type ScalarType = Exclude<ValueType, 'array'>

/** A metadata value with the type that it has in the file. */
export type TypedValue =
  | { readonly type: ScalarType; readonly value: string | number | bigint | boolean }
  | { readonly type: 'array'; readonly of: ScalarType; readonly value: readonly (string | number | bigint | boolean)[] }

/** Metadata in file order. */
export type TypedMetadata = ReadonlyMap<string, TypedValue>

/** A tensor's entry in the header. */
export interface TensorHeader {
  readonly name: string
  readonly format: FormatName
  /** Contiguous dimension first. */
  readonly shape: readonly number[]
}

/** A tensor with its data: chunks of any size that add up to the tensor's size. */
export interface TensorSource extends TensorHeader {
  readonly data: () => Iterable<Uint8Array> | AsyncIterable<Uint8Array>
}

/** How to write a file. */
export interface WriteOptions {
  readonly metadata: TypedMetadata
  readonly tensors: readonly TensorSource[]
  /** GGUF version; default 3. */
  readonly version?: 2 | 3
  readonly signal?: AbortSignal
  /** Called after every chunk; `total` and `done` in bytes. */
  readonly onProgress?: (progress: { readonly done: number; readonly total: number }) => void
}

/** Size of a tensor's data in bytes. */
export function tensorBytes(tensor: TensorHeader): number {
  const [columns = 1, ...others] = tensor.shape
  return rowBytes(FORMATS[tensor.format], columns) * others.reduce((product, length) => product * length, 1)
}

/** Offsets of the tensors' data relative to the start of the data, and the size of all of it. */
export function layoutTensors(tensors: readonly TensorHeader[], alignment: number): { offsets: number[]; bytes: number } {
  const offsets: number[] = []
  let bytes = 0
  for (const tensor of tensors) {
    offsets.push(bytes)
    bytes = align(bytes + tensorBytes(tensor), alignment)
  }
  return { offsets, bytes }
}

/** The header up to the first tensor's data, padded to the alignment (`general.alignment`, default 32). */
export function encodeHeader(metadata: TypedMetadata, tensors: readonly TensorHeader[], version = 3): Uint8Array {
  const out = new ByteWriter()
  out.u32(MAGIC)
  out.u32(version)
  out.u64(tensors.length)
  out.u64(metadata.size)
  for (const [key, entry] of metadata) {
    out.string(key)
    out.u32(VALUE_TYPES[entry.type])
    if (entry.type === 'array') {
      out.u32(VALUE_TYPES[entry.of])
      out.u64(entry.value.length)
      for (const item of entry.value) out.scalar(entry.of, item)
    } else out.scalar(entry.type, entry.value)
  }
  const alignment = alignmentOf(metadata)
  const { offsets } = layoutTensors(tensors, alignment)
  for (const [index, tensor] of tensors.entries()) {
    out.string(tensor.name)
    out.u32(tensor.shape.length)
    for (const length of tensor.shape) out.u64(length)
    out.u32(FORMATS[tensor.format].id)
    out.u64(offsets[index]!)
  }
  return out.take(align(out.bytes, alignment))
}

/**
 * Writes a model to `path` and returns its size. The file appears under its name only when it is complete; on an error nothing is left.
 * Throws `ERR_FILE_ACCESS`, `ERR_ABORTED`, and `ERR_ARGUMENT` when a tensor's chunks do not add up to its size.
 */
export async function writeModelFile(path: string, options: WriteOptions): Promise<{ bytes: number; tensors: number }> {
  const partial = `${path}.partial`
  const handle = await access(path, () => open(partial, 'w'))
  try {
    const bytes = await access(path, () => writeAll(handle, options))
    await access(path, () => handle.close())
    await access(path, () => rename(partial, path))
    return { bytes, tensors: options.tensors.length }
  } catch (error) {
    await handle.close().catch(() => undefined)
    await rm(partial, { force: true })
    throw error
  }
}

async function writeAll(handle: FileHandle, options: WriteOptions): Promise<number> {
  const header = encodeHeader(options.metadata, options.tensors, options.version)
  const alignment = alignmentOf(options.metadata)
  const total = header.length + layoutTensors(options.tensors, alignment).bytes
  let done = 0
  const put = async (chunk: Uint8Array): Promise<void> => {
    if (options.signal?.aborted) throw new TandemError('ERR_ABORTED', 'writing the model was aborted')
    for (let at = 0; at < chunk.length;) at += (await handle.write(chunk, at, chunk.length - at)).bytesWritten
    done += chunk.length
    options.onProgress?.({ done, total })
  }
  await put(header)
  for (const tensor of options.tensors) {
    const bytes = tensorBytes(tensor)
    let written = 0
    for await (const chunk of tensor.data()) {
      written += chunk.length
      if (written > bytes) break
      await put(chunk)
    }
    if (written !== bytes) {
      throw new TandemError(
        'ERR_ARGUMENT',
        `tensor ${tensor.name}: its data should have ${bytes} bytes, the source gave ${written} or more`,
      )
    }
    const padding = align(bytes, alignment) - bytes
    if (padding > 0) await put(new Uint8Array(padding))
  }
  return done
}

function alignmentOf(metadata: TypedMetadata): number {
  return Number(metadata.get('general.alignment')?.value ?? DEFAULT_ALIGNMENT)
}

/** A growing little-endian buffer. */
class ByteWriter {
  #buffer = Buffer.alloc(64 * 1024)
  bytes = 0

  u32(value: number): void {
    this.scalar('u32', value)
  }

  u64(value: number): void {
    this.scalar('u64', value)
  }

  string(text: string): void {
    const bytes = Buffer.byteLength(text)
    this.u64(bytes)
    const at = this.#advance(bytes)
    this.#buffer.write(text, at)
  }

  scalar(type: ScalarType, value: string | number | bigint | boolean): void {
    if (type === 'string') return this.string(String(value))
    const [bytes, write] = SCALAR_WRITERS[type]
    // The offset first: advancing may replace the buffer.
    const at = this.#advance(bytes)
    write(this.#buffer, value as number, at)
  }

  /** All bytes so far, padded with zeros to `length`. */
  take(length: number): Uint8Array {
    const taken = new Uint8Array(length)
    taken.set(this.#buffer.subarray(0, this.bytes))
    return taken
  }

  #advance(bytes: number): number {
    const at = this.bytes
    this.bytes += bytes
    if (this.bytes > this.#buffer.length) {
      const grown = Buffer.alloc(Math.max(this.bytes, this.#buffer.length * 2))
      this.#buffer.copy(grown)
      this.#buffer = grown
    }
    return at
  }
}

const SCALAR_WRITERS: Record<Exclude<ScalarType, 'string'>, [number, (buffer: Buffer, value: number, at: number) => void]> = {
  u8: [1, (buffer, value, at) => buffer.writeUInt8(value, at)],
  i8: [1, (buffer, value, at) => buffer.writeInt8(value, at)],
  u16: [2, (buffer, value, at) => buffer.writeUInt16LE(value, at)],
  i16: [2, (buffer, value, at) => buffer.writeInt16LE(value, at)],
  u32: [4, (buffer, value, at) => buffer.writeUInt32LE(value, at)],
  i32: [4, (buffer, value, at) => buffer.writeInt32LE(value, at)],
  f32: [4, (buffer, value, at) => buffer.writeFloatLE(value, at)],
  bool: [1, (buffer, value, at) => buffer.writeUInt8(value ? 1 : 0, at)],
  u64: [8, (buffer, value, at) => buffer.writeBigUInt64LE(BigInt(value), at)],
  i64: [8, (buffer, value, at) => buffer.writeBigInt64LE(BigInt(value), at)],
  f64: [8, (buffer, value, at) => buffer.writeDoubleLE(value, at)],
}
