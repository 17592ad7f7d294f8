/** Opens a sidecar: only one that belongs to the model as it is now, and holds what it should. Whether in the kernels' layout, they have to say. */
import { constants } from 'node:fs'
import { type FileHandle, open, stat } from 'node:fs/promises'
import { TandemError } from '../errors.ts'
import { access } from '../gguf/reader.ts'
import type { ModelFile } from '../gguf/types.ts'
import type { Matrix, Model } from '../model/types.ts'
import type { PlacedMatrix } from '../placement/types.ts'
import { FILE_PAGE_BYTES } from '../ring/arena.ts'
import type { FileRange } from '../native/map-file.ts'
import { hashFile, identifyShards, type Watched } from './identity.ts'
import { invalid, readIndex, stale } from './index-codec.ts'
import { sidecarContents, type SidecarIndex } from './layout.ts'

/** Where the sidecar of a model is: `auto` stands for the place beside its first shard. */
export const sidecarPath = ({ paths }: ModelFile, path: string): string => (path === 'auto' ? `${paths[0]}.tandem` : path)

/** A range of a matrix's experts in the sidecar and in an arena. */
export interface SidecarRange extends FileRange {
  /** It begins on a page in both, and has its pages in the arena for itself. */
  readonly isMappable: boolean
}

/** An open sidecar. Its file is opened once, so that what has been checked is what is read. */
export class Sidecar {
  readonly path: string
  readonly index: SidecarIndex
  readonly handle: FileHandle
  readonly #dataOffset: number
  readonly #offsets: ReadonlyMap<Matrix, number>

  constructor(parts: { path: string; index: SidecarIndex; handle: FileHandle; dataOffset: number; offsets: ReadonlyMap<Matrix, number> }) {
    this.path = parts.path
    this.index = parts.index
    this.handle = parts.handle
    this.#dataOffset = parts.dataOffset
    this.#offsets = parts.offsets
  }

  /** Bytes of the file from which on there is data, to its end. */
  get dataRange(): { readonly begin: number; readonly end: number } {
    return { begin: this.#dataOffset, end: this.#dataOffset + this.index.dataBytes }
  }

  /** Where the sidecar has a placed matrix; undefined for what is too small to be in it. */
  rangeOf({ matrix, arena, offset, expertBegin, expertEnd, expertBytes, hasOwnPages }: PlacedMatrix): SidecarRange | undefined {
    const matrixOffset = this.#offsets.get(matrix)
    if (matrixOffset === undefined) return undefined
    const fileOffset = this.#dataOffset + matrixOffset + expertBegin * expertBytes
    const bytes = (expertEnd - expertBegin) * expertBytes
    return { arena, offset, fileOffset, bytes, isMappable: hasOwnPages && fileOffset % FILE_PAGE_BYTES === 0 }
  }

  close(): Promise<void> {
    return this.handle.close()
  }
}

/** Throws `ERR_SIDECAR_STALE` unless the model's files are those that were repacked. A file with another time is read as a whole. */
async function checkModel(path: string, { shards }: SidecarIndex, file: ModelFile, watched: Watched): Promise<void> {
  if (shards.length !== file.paths.length) throw stale(path, `it belongs to a model of ${shards.length} files, not ${file.paths.length}`)
  const identities = await identifyShards(file)
  for (const [shard, { bytes, modified, header }] of identities.entries()) {
    const name = file.paths[shard]!
    const then = shards[shard]!
    if (bytes !== then.bytes) throw stale(path, `${name} has ${bytes} bytes, and had ${then.bytes} when it was repacked`)
    if (header !== then.header) throw stale(path, `${name} has another header than when it was repacked`)
    if (modified !== then.modified && (await hashFile(name, watched)) !== then.content) {
      throw stale(path, `${name} has changed since it was repacked`)
    }
  }
}

async function check(path: string, handle: FileHandle, model: Model, watched: Watched): Promise<Sidecar> {
  const { size } = await access(path, () => handle.stat())
  const { index, dataOffset } = await readIndex(handle, path, size)
  await checkModel(path, index, model.file, watched)
  const { packed, dataBytes } = sidecarContents(model)
  const places = packed.map(({ place }) => place)
  if (index.dataBytes !== dataBytes || JSON.stringify(index.matrices) !== JSON.stringify(places)) {
    throw stale(path, 'it holds other matrices than this Tandem would put there')
  }
  if (size !== dataOffset + dataBytes) throw invalid(path, `the file has ${size} bytes and should have ${dataOffset + dataBytes}`)
  return new Sidecar({ path, index, handle, dataOffset, offsets: new Map(packed.map(({ matrix, place }) => [matrix, place.offset])) })
}

/**
 * Opens and checks a sidecar; `path` as in `sidecarPath`. `onBytes` hears of the model's bytes where they have to be read.
 * Throws `ERR_FILE_ACCESS`, `ERR_SIDECAR_INVALID`, `ERR_SIDECAR_STALE`, `ERR_ABORTED`.
 */
export async function openSidecar(model: Model, path: string, watched: Watched = {}): Promise<Sidecar> {
  const found = sidecarPath(model.file, path)
  // before opening: opening a named pipe waits for a writer, perhaps forever
  const before = await stat(found).catch((cause: NodeJS.ErrnoException) => {
    const advice = cause.code === 'ENOENT' ? 'there is no repacked model; write one with tandem repack' : cause.message
    throw new TandemError('ERR_FILE_ACCESS', `${found}: ${advice}`, { cause })
  })
  if (!before.isFile()) throw new TandemError('ERR_FILE_ACCESS', `${found}: not a regular file`)
  const handle = await access(found, () => open(found, constants.O_RDONLY))
  try {
    return await check(found, handle, model, watched)
  } catch (error) {
    await handle.close()
    throw error
  }
}
