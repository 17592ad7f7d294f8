/** Fills the arenas: every worker takes the next load that nobody has taken, reads it into its own scratch, and repacks it into place. */
import { CONTROL, LOADED_UNIT_BYTES } from '../abi/control.ts'
import { KERNEL_STATUS } from '../abi/kernels.ts'
import { TandemError } from '../errors.ts'
import { ShardFiles } from '../gguf/shard-files.ts'
import { toFloat32 } from '../gguf/vector.ts'
import type { Load } from '../placement/loads.ts'
import type { WorkerArena, WorkerContext } from './context.ts'
import { check } from './kernels.ts'

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

/** Loads until nothing is left or `shouldStop`. Throws `ERR_FILE_ACCESS`, `ERR_GGUF_TRUNCATED`, `ERR_WEIGHT_NOT_FINITE`. */
export function loadWeights(
  context: WorkerContext,
  control: Int32Array<SharedArrayBuffer>,
  paths: readonly string[],
  loads: readonly Load[],
  shouldStop: () => boolean,
): void {
  const files = new ShardFiles(paths)
  try {
    while (!shouldStop()) {
      const load = loads[Atomics.add(control, CONTROL.nextLoad, 1)]
      if (!load) return
      const arena = context.arena(load.arena)
      files.read(load.shard, arena.bytes.subarray(context.scratch, context.scratch + load.fileBytes), load.fileOffset)
      store(load, arena, context.scratch)
      Atomics.add(control, CONTROL.loaded, Math.ceil(load.fileBytes / LOADED_UNIT_BYTES))
    }
  } finally {
    files.close()
  }
}
