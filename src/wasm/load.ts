/**
 * Fills the arenas: every worker takes the next load that nobody has taken, reads it into its own scratch, and repacks it into place. What a file has as
 * panels is read into place at once.
 */
import { readSync } from 'node:fs'
import { CONTROL, LOADED_UNIT_BYTES } from '../abi/control.ts'
import { KERNEL_STATUS } from '../abi/kernels.ts'
import { debugLog, msSince } from '../diagnostics/debug.ts'
import { TandemError } from '../errors.ts'
import { ShardFiles } from '../gguf/shard-files.ts'
import { toFloat32 } from '../gguf/vector.ts'
import type { Load } from '../placement/loads.ts'
import type { FileRange } from '../native/map-file.ts'
import type { WorkerArena, WorkerContext } from './context.ts'
import { check } from './kernels.ts'
import type { PanelFile, ServeTask } from './protocol.ts'

const debug = debugLog('pool')

function notFinite(load: Load): TandemError {
  return new TandemError(
    'ERR_WEIGHT_NOT_FINITE',
    `tensor ${load.tensor} holds a weight or scale that is NaN or infinite; the file is damaged`,
  )
}

function store(load: Load, arena: WorkerArena, staging: number): void {
  if (load.isVector) {
    const raw = arena.bytes.subarray(staging, staging + load.fileBytes)
    const values = toFloat32(load.format, raw, load.columns)
    if (!values.every(Number.isFinite)) throw notFinite(load)
    arena.floats.set(values, load.offset / 4)
    return
  }
  const status = arena.kernels.repack(load.format, load.offset, staging, load.columns, load.rows)
  if (status === KERNEL_STATUS.notFinite) throw notFinite(load)
  check(status, 'repack')
}

/** Reads panels into place. */
function copy(context: WorkerContext, { path, descriptor }: PanelFile, { arena, offset, fileOffset, bytes }: FileRange): void {
  const target = context.arena(arena).bytes
  for (let done = 0; done < bytes;) {
    let read = 0
    try {
      read = readSync(descriptor, target, offset + done, bytes - done, fileOffset + done)
    } catch (error) {
      throw TandemError.from(error, 'ERR_FILE_ACCESS')
    }
    if (read === 0) throw new TandemError('ERR_SIDECAR_INVALID', `${path} ended while its panels were read; has it been changed?`)
    done += read
  }
}

/** Loads until nothing is left or `shouldStop`. Throws `ERR_FILE_ACCESS`, `ERR_GGUF_TRUNCATED`, `ERR_SIDECAR_INVALID`, `ERR_WEIGHT_NOT_FINITE`. */
export function loadWeights(
  context: WorkerContext,
  control: Int32Array<SharedArrayBuffer>,
  { paths, loads, panels }: Pick<ServeTask, 'paths' | 'loads' | 'panels'>,
  shouldStop: () => boolean,
): void {
  const files = new ShardFiles(paths)
  const begun = performance.now()
  let [pieces, total] = [0, 0]
  const loaded = (bytes: number): void => {
    pieces++
    total += bytes
    Atomics.add(control, CONTROL.loaded, Math.ceil(bytes / LOADED_UNIT_BYTES))
  }
  try {
    while (!shouldStop()) {
      const next = Atomics.add(control, CONTROL.nextLoad, 1)
      const load = loads[next]
      if (!load) {
        const range = panels?.copies[next - loads.length]
        if (!panels || !range) return
        copy(context, panels, range)
        loaded(range.bytes)
        continue
      }
      const arena = context.arena(load.arena)
      files.read(load.shard, arena.bytes.subarray(context.scratch, context.scratch + load.fileBytes), load.fileOffset)
      store(load, arena, context.scratch)
      loaded(load.fileBytes)
    }
  } finally {
    debug?.(`worker ${context.worker}: ${pieces} pieces, ${total} bytes loaded in ${msSince(begun)}`)
    files.close()
  }
}
