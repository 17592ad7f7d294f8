/** Reads everything that a sidecar's checksums are of: for whoever doubts a disk. Loading trusts sizes, times and the headers. */
import type { Model } from '../model/types.ts'
import { hashBytes, hashFile, type Watched } from './identity.ts'
import { invalid, stale } from './index-codec.ts'
import { openSidecar } from './open.ts'
import { compileKernels } from '../wasm/kernels.ts'
import { checkPanelLayout } from '../wasm/panel-layout.ts'

/** What was compared. */
export interface VerifyResult {
  readonly path: string
  /** Of the model's files and the sidecar's panels. */
  readonly bytes: number
}

/** Options of `verifySidecar`. */
export interface VerifyOptions {
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((done: number, total: number) => void) | undefined
}

/**
 * Compares the whole of a model and its sidecar with the checksums in the sidecar; `path` as in `sidecarPath`.
 * Throws what `openSidecar` throws: `ERR_SIDECAR_STALE` for a changed model, `ERR_SIDECAR_INVALID` for changed panels.
 */
export async function verifySidecar(model: Model, path: string, { signal, onProgress }: VerifyOptions = {}): Promise<VerifyResult> {
  const sidecar = await openSidecar(model, path, { signal })
  try {
    const { index, handle, dataRange } = sidecar
    checkPanelLayout({ path: sidecar.path, layout: index.panels }, await compileKernels())
    const total = model.file.bytes + index.dataBytes
    let done = 0
    const watched: Watched = { signal, onBytes: (bytes) => onProgress?.((done += bytes), total) }
    for (const [shard, file] of model.file.paths.entries()) {
      if ((await hashFile(file, watched)) !== index.shards[shard]!.content) {
        throw stale(sidecar.path, `${file} has changed since it was repacked`)
      }
    }
    if ((await hashBytes(handle, sidecar.path, dataRange.begin, dataRange.end, watched)) !== index.data) {
      throw invalid(sidecar.path, 'the panels do not have the checksum that they should have: the file is damaged')
    }
    return { path: sidecar.path, bytes: total }
  } finally {
    await sidecar.close()
  }
}
