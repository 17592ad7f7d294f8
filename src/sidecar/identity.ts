/** Which state of a model's files a sidecar belongs to. */
import { createHash } from 'node:crypto'
import { type FileHandle, open } from 'node:fs/promises'
import { TandemError } from '../errors.ts'
import { access } from '../gguf/reader.ts'
import type { ModelFile } from '../gguf/types.ts'
import type { ShardIdentity } from './layout.ts'

/** What can be told of a file without reading all of it. */
export type QuickIdentity = Omit<ShardIdentity, 'content'>

/** For work that takes long: `onBytes` hears of every piece that is done. */
export interface Watched {
  readonly signal?: AbortSignal | undefined
  readonly onBytes?: ((bytes: number) => void) | undefined
}

const CHUNK_BYTES = 4 * 2 ** 20

/** Throws `ERR_ABORTED`. */
export function throwIfAborted(signal: AbortSignal | undefined, path: string): void {
  if (signal?.aborted) throw new TandemError('ERR_ABORTED', `${path}: reading was aborted`, { cause: signal.reason })
}

/** SHA-256 of the bytes [begin, end) of a file, or up to its end where that comes before. Throws `ERR_FILE_ACCESS`, `ERR_ABORTED`. */
export async function hashBytes(handle: FileHandle, path: string, begin: number, end: number, watched: Watched = {}): Promise<string> {
  const hash = createHash('sha256')
  const buffer = Buffer.allocUnsafe(CHUNK_BYTES)
  for (let at = begin; at < end;) {
    throwIfAborted(watched.signal, path)
    const { bytesRead } = await access(path, () => handle.read(buffer, 0, Math.min(buffer.length, end - at), at))
    if (bytesRead === 0) break
    hash.update(buffer.subarray(0, bytesRead))
    at += bytesRead
    watched.onBytes?.(bytesRead)
  }
  return hash.digest('hex')
}

/** Runs `work` with an open file. Throws `ERR_FILE_ACCESS`. */
export async function withFile<Result>(path: string, work: (handle: FileHandle) => Promise<Result>): Promise<Result> {
  const handle = await access(path, () => open(path, 'r'))
  try {
    return await work(handle)
  } finally {
    await handle.close()
  }
}

/** The bytes of each shard that come before its first tensor's data: all of one without tensors. */
function headerEnds({ paths, tensors }: ModelFile): number[] {
  const ends = paths.map(() => Infinity)
  for (const { shard, offset } of tensors.values()) ends[shard] = Math.min(ends[shard]!, offset)
  return ends
}

/** Size, time and header of every shard. Throws `ERR_FILE_ACCESS`. */
export function identifyShards(file: ModelFile): Promise<QuickIdentity[]> {
  const ends = headerEnds(file)
  return Promise.all(
    file.paths.map((path, shard) =>
      withFile(path, async (handle) => {
        const { size, mtimeNs } = await access(path, () => handle.stat({ bigint: true }))
        const bytes = Number(size)
        return { bytes, modified: String(mtimeNs), header: await hashBytes(handle, path, 0, Math.min(ends[shard]!, bytes)) }
      }),
    ),
  )
}

/** SHA-256 of a whole file. Throws `ERR_FILE_ACCESS`, `ERR_ABORTED`. */
export const hashFile = (path: string, watched?: Watched): Promise<string> =>
  withFile(path, (handle) => hashBytes(handle, path, 0, Infinity, watched))
