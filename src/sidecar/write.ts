/** Repacks a model into a sidecar. The same model gives the same bytes. */
import { createHash, type Hash } from 'node:crypto'
import { type FileHandle, open, rename, rm, statfs } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { FORMATS, packedBytes } from '../abi/formats.ts'
import { KERNEL_STATUS } from '../abi/kernels.ts'
import { TandemError } from '../errors.ts'
import { access } from '../gguf/reader.ts'
import { ShardFiles } from '../gguf/shard-files.ts'
import type { Matrix, Model } from '../model/types.ts'
import { matrixPieces, type Piece } from '../placement/loads.ts'
import { arenaBuffer, createArena, FILE_PAGE_BYTES, PAGE_BYTES } from '../ring/arena.ts'
import { check, compileKernels, instantiateKernels, type Kernels } from '../wasm/kernels.ts'
import { panelLayout } from '../wasm/panel-layout.ts'
import { hashFile, identifyShards, type QuickIdentity, throwIfAborted, type Watched } from './identity.ts'
import { encodeIndex, stale } from './index-codec.ts'
import { sidecarContents, type SidecarIndex } from './layout.ts'
import { sidecarPath } from './open.ts'

/** Options of `writeSidecar`. */
export interface WriteSidecarOptions {
  readonly signal?: AbortSignal | undefined
  /** Bytes read for the checksums and bytes written. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined
}

/** What was written. */
export interface WrittenSidecar {
  readonly path: string
  readonly bytes: number
  readonly matrices: number
  readonly seconds: number
}

/** The kernel module's data, then its stack: both need less than a page of WebAssembly. */
const BENCH_START = 2 * PAGE_BYTES

/** Kernels over a memory that holds one piece, as it is in the file and as panels. */
class Repacker {
  readonly #files: ShardFiles
  readonly #kernels: ReturnType<typeof instantiateKernels>
  readonly #bytes: Uint8Array<SharedArrayBuffer>
  readonly #panels: number

  constructor(kernels: Kernels, model: Model, pieces: { readonly fileBytes: number; readonly packed: number }) {
    this.#panels = BENCH_START + Math.ceil(pieces.fileBytes / 64) * 64
    const memory = createArena(this.#panels + pieces.packed)
    this.#kernels = instantiateKernels(kernels.module, memory, BENCH_START, PAGE_BYTES)
    this.#bytes = new Uint8Array(arenaBuffer(memory))
    this.#files = new ShardFiles(model.file.paths)
  }

  /** A piece's panels: a copy. Throws `ERR_FILE_ACCESS`, `ERR_GGUF_TRUNCATED`, `ERR_WEIGHT_NOT_FINITE`. */
  repack({ tensor, columns }: Matrix, { fileOffset, fileBytes, rows }: Piece): Buffer {
    const format = FORMATS[tensor.format]
    this.#files.read(tensor.shard, this.#bytes.subarray(BENCH_START, BENCH_START + fileBytes), fileOffset)
    const status = this.#kernels.repack(format.id, this.#panels, BENCH_START, columns, rows)
    if (status === KERNEL_STATUS.notFinite) {
      throw new TandemError(
        'ERR_WEIGHT_NOT_FINITE',
        `tensor ${tensor.name} holds a weight or scale that is NaN or infinite; the file is damaged`,
      )
    }
    check(status, 'repack')
    return Buffer.from(this.#bytes.subarray(this.#panels, this.#panels + packedBytes(format, rows, columns)))
  }

  close(): void {
    this.#files.close()
  }
}

async function writeAt(handle: FileHandle, bytes: Uint8Array, offset: number): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    done += (await handle.write(bytes, done, bytes.length - done, offset + done)).bytesWritten
  }
}

/** Writes all panels from `begin` on; the hash of what was written. */
async function writePanels(
  handle: FileHandle,
  path: string,
  model: Model,
  kernels: Kernels,
  begin: number,
  watched: Watched,
): Promise<Hash> {
  const { packed } = sidecarContents(model)
  let [fileBytes, panelBytes] = [1, 1]
  for (const { matrix } of packed) {
    const format = FORMATS[matrix.tensor.format]
    for (const piece of matrixPieces(matrix, 0, 1)) {
      fileBytes = Math.max(fileBytes, piece.fileBytes)
      panelBytes = Math.max(panelBytes, packedBytes(format, piece.rows, matrix.columns))
    }
  }
  const repacker = new Repacker(kernels, model, { fileBytes, packed: panelBytes })
  const hash = createHash('sha256')
  const put = async (bytes: Buffer, offset: number): Promise<void> => {
    throwIfAborted(watched.signal, path)
    hash.update(bytes)
    await access(path, () => writeAt(handle, bytes, offset))
    watched.onBytes?.(bytes.length)
  }
  try {
    for (const { matrix, place } of packed) {
      const at = begin + place.offset
      for (const piece of matrixPieces(matrix)) await put(repacker.repack(matrix, piece), at + piece.packedOffset)
      const rest = (FILE_PAGE_BYTES - (place.bytes % FILE_PAGE_BYTES)) % FILE_PAGE_BYTES
      if (rest > 0) await put(Buffer.alloc(rest), at + place.bytes)
    }
    return hash
  } finally {
    repacker.close()
  }
}

/** Throws `ERR_FILE_ACCESS` where the disk has too little room. */
async function checkRoom(path: string, bytes: number): Promise<void> {
  const directory = dirname(path)
  const { bavail, bsize } = await access(directory, () => statfs(directory))
  if (bytes <= bavail * bsize) return
  const size = (count: number): string => `${(count / 1e9).toFixed(1)} GB`
  throw new TandemError(
    'ERR_FILE_ACCESS',
    `${path}: the file takes ${size(bytes)} and the disk has ${size(bavail * bsize)} free; free some space or choose another place`,
  )
}

const NO_HASH = '0'.repeat(64)

/**
 * Writes the sidecar of a model; `path` as in `sidecarPath`. It appears under its name only when it is complete, and replaces what was there; on an
 * error nothing is left. Throws `ERR_FILE_ACCESS` (also when the disk has too little room), `ERR_WEIGHT_NOT_FINITE`, `ERR_ABORTED`, `ERR_ARGUMENT`,
 * `ERR_SIDECAR_STALE` when the model changes meanwhile.
 */
export async function writeSidecar(model: Model, path: string, options: WriteSidecarOptions = {}): Promise<WrittenSidecar> {
  const started = performance.now()
  const { signal, onProgress } = options
  const output = sidecarPath(model.file, path)
  if (model.file.paths.some((file) => resolve(file) === resolve(output))) {
    throw new TandemError('ERR_ARGUMENT', `${output} is the model itself: choose another place for the repacked file`)
  }
  const kernels = await compileKernels()
  const { packed, dataBytes } = sidecarContents(model)
  const quick = await identifyShards(model.file)
  const indexOf = (contents: readonly string[], data: string): SidecarIndex => ({
    panels: panelLayout(kernels),
    shards: quick.map((identity, shard) => ({ ...identity, content: contents[shard]! })),
    matrices: packed.map(({ place }) => place),
    dataBytes,
    data,
  })
  const begin = encodeIndex(
    indexOf(
      quick.map(() => NO_HASH),
      NO_HASH,
    ),
  ).length
  await checkRoom(output, begin + dataBytes)

  const total = model.file.bytes + dataBytes
  let done = 0
  const watched: Watched = { signal, onBytes: (bytes) => onProgress?.((done += bytes), total) }
  const partial = `${output}.partial`
  const handle = await access(partial, () => open(partial, 'w'))
  try {
    const data = await writePanels(handle, partial, model, kernels, begin, watched)
    const contents: string[] = []
    for (const file of model.file.paths) contents.push(await hashFile(file, watched))
    checkUnchanged(output, quick, await identifyShards(model.file))
    // the header last and after the data: what has a right header is complete, also when the machine stops
    await access(partial, () => handle.datasync())
    await access(partial, () => writeAt(handle, encodeIndex(indexOf(contents, data.digest('hex'))), 0))
    await access(partial, () => handle.datasync())
    await access(partial, () => handle.close())
    await access(output, () => rename(partial, output))
  } catch (error) {
    await handle.close().catch(() => undefined)
    await rm(partial, { force: true })
    throw error
  }
  return { path: output, bytes: begin + dataBytes, matrices: packed.length, seconds: (performance.now() - started) / 1000 }
}

/** Throws `ERR_SIDECAR_STALE` for panels that are partly of one state of the model and partly of another. */
function checkUnchanged(path: string, before: readonly QuickIdentity[], after: readonly QuickIdentity[]): void {
  if (JSON.stringify(before) === JSON.stringify(after)) return
  throw stale(path, 'the model has changed while it was repacked')
}
