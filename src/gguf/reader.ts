/** Reads one GGUF file: header, metadata, tensor table. Tensor data is never read here. Why not a library: docs/decisions/0001-gguf-reader.md. */
import { open, stat } from 'node:fs/promises'
import { TandemError } from '../errors.ts'
import { Cursor } from './cursor.ts'
import { MAGIC, MIN_PAIR_BYTES, MIN_TENSOR_BYTES } from './layout.ts'
import { MAX_METADATA_PAIRS, MAX_TENSORS } from './limits.ts'
import { limit, readMetadata } from './metadata.ts'
import type { Budget } from './metadata.ts'
import { readTensors } from './tensors.ts'
import type { Metadata, TensorInfo } from './types.ts'

/** One file of a model. */
export interface GgufFile {
  readonly path: string
  readonly version: number
  readonly metadata: Metadata
  readonly tensors: readonly TensorInfo[]
  /** Size of the file. */
  readonly bytes: number
}

/**
 * Reads and checks one file's header. `shard` is the index that its tensors carry, `budget` what the model has used of the limits.
 * Throws `ERR_FILE_ACCESS`, `ERR_GGUF_*`, `ERR_FORMAT_UNSUPPORTED`, `ERR_ABORTED`.
 */
export async function readGguf(path: string, shard: number, budget: Budget, signal?: AbortSignal): Promise<GgufFile> {
  // Before opening: opening a named pipe waits for a writer, perhaps forever.
  const before = await access(path, () => stat(path))
  if (!before.isFile()) throw new TandemError('ERR_FILE_ACCESS', `${path}: not a regular file; give the path of a .gguf file`)
  const handle = await access(path, () => open(path, 'r'))
  try {
    const { size } = await access(path, () => handle.stat())
    return await readHeader(new Cursor(handle, path, size, signal), shard, budget)
  } finally {
    await handle.close()
  }
}

async function readHeader(cursor: Cursor, shard: number, budget: Budget): Promise<GgufFile> {
  await cursor.need(Math.min(4, Math.max(1, cursor.left)), 'the magic number')
  if (cursor.left < 4) throw cursor.truncated('the magic number', 4)
  const magic = cursor.u32()
  if (magic !== MAGIC) {
    throw new TandemError('ERR_GGUF_MAGIC', `${cursor.path}: the file does not begin with "GGUF"; it is not a GGUF model`)
  }
  await cursor.need(20, 'the header')
  const version = cursor.u32()
  if (version !== 2 && version !== 3) throw versionError(cursor.path, version)
  const tensorCount = count(cursor, cursor.u64(), 'tensors', MAX_TENSORS)
  const pairCount = count(cursor, cursor.u64(), 'metadata pairs', MAX_METADATA_PAIRS)
  const least = pairCount * MIN_PAIR_BYTES + tensorCount * MIN_TENSOR_BYTES
  if (least > cursor.left) throw cursor.truncated('the header', least)
  const metadata = await readMetadata(cursor, pairCount, budget)
  const tensors = await readTensors(cursor, tensorCount, metadata, shard, budget)
  return { path: cursor.path, version, metadata, tensors, bytes: cursor.fileBytes }
}

function count(cursor: Cursor, claimed: number | bigint, what: string, most: number): number {
  if (claimed > most) throw limit(cursor, `the header claims ${claimed} ${what}, at most ${most} are accepted`)
  return Number(claimed)
}

function versionError(path: string, version: number): TandemError {
  if (version !== 0 && (version & 0xffff) === 0) {
    return new TandemError('ERR_GGUF_VERSION', `${path}: the file is big-endian; convert it to a little-endian GGUF`)
  }
  return new TandemError('ERR_GGUF_VERSION', `${path}: GGUF version ${version} is not supported, only 2 and 3; convert the model again`)
}

/** Why a file-system call failed and what to do, by error code. */
const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'no such file or directory; check the path',
  EACCES: 'permission denied; check the rights of the file and its directory',
  ENOSPC: 'the disk is full; free some space or choose another place',
}

/** Runs a file-system call and says which file failed; a `TandemError` passes through. */
export async function access<T>(path: string, call: () => Promise<T>): Promise<T> {
  try {
    return await call()
  } catch (cause) {
    if (TandemError.is(cause)) throw cause
    const { code = '', message } = cause as NodeJS.ErrnoException
    throw new TandemError('ERR_FILE_ACCESS', `${path}: ${REASONS[code] ?? message}`, { cause })
  }
}
