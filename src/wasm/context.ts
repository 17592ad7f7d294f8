/** What a worker of the pool knows: its kernels in every arena, the step at hand, its share of the work, and where the others are. */
import { ACTIVATION, type Activation } from '../abi/formats.ts'
import { CONTROL } from '../abi/control.ts'
import { type KernelExports, recordBytes } from '../abi/kernels.ts'
import { STEP_HEADER } from '../abi/step.ts'
import type { MatrixCall, Program } from '../pipeline/program.ts'
import type { FanIn } from '../ring/fan-in.ts'
import type { WaitOptions } from '../ring/wait.ts'
import { check } from './kernels.ts'

/** One arena as a worker sees it. */
export interface WorkerArena {
  readonly kernels: KernelExports
  readonly bytes: Uint8Array<SharedArrayBuffer>
  readonly words: Int32Array<SharedArrayBuffer>
  readonly floats: Float32Array<SharedArrayBuffer>
}

/** A half-open range of indices. */
export interface Share {
  readonly begin: number
  readonly end: number
}

/** Everything a stage function needs. Made once per worker. */
export class WorkerContext {
  readonly program: Program
  readonly arenas: readonly WorkerArena[]
  readonly worker: number
  readonly workers: number
  /** This worker's private scratch; the same offset in every arena. */
  readonly scratch: number
  /** This worker's private bytes for the grouping of routed pairs, behind the kernels' scratch. */
  readonly groupBytes: number
  /** Tokens, runs and output rows of the current step. */
  tokens = 0
  runs = 0
  outputs = 0
  readonly #control: Int32Array<SharedArrayBuffer>
  readonly #barrier: FanIn
  readonly #wait: WaitOptions

  constructor(options: {
    program: Program
    arenas: readonly WorkerArena[]
    worker: number
    workers: number
    control: Int32Array<SharedArrayBuffer>
    barrier: FanIn
    wait: WaitOptions
  }) {
    this.program = options.program
    this.arenas = options.arenas
    this.worker = options.worker
    this.workers = options.workers
    this.#control = options.control
    this.#barrier = options.barrier
    this.#wait = options.wait
    const { arena } = options.program
    this.scratch = arena.workers + options.worker * arena.workerBytes + arena.stackBytes
    this.groupBytes = this.scratch + arena.scratchBytes
  }

  /** Arena by index. */
  arena(index: number): WorkerArena {
    return this.arenas[index]!
  }

  /** Waits until every worker is here: what they wrote before is visible after. */
  sync(): void {
    this.#barrier.arriveAndWait(this.#wait)
  }

  /** As `sync`, and agrees on whether to go on: the last worker to arrive reads the step's cancel flag for all. True to abandon. */
  syncAndAgree(cancelWord: Int32Array<SharedArrayBuffer>): boolean {
    this.#barrier.arriveAndWait(this.#wait, () => {
      Atomics.store(this.#control, CONTROL.abandon, Atomics.load(cancelWord, STEP_HEADER.cancel))
    })
    return Atomics.load(this.#control, CONTROL.abandon) !== 0
  }

  /** This worker's part of `count` items in whole `unit`s; `turn` rotates who gets the remainder. */
  share(count: number, unit = 1, turn = 0): Share {
    const units = Math.ceil(count / unit)
    const part = (this.worker + turn) % this.workers
    const begin = Math.floor((units * part) / this.workers) * unit
    const end = Math.floor((units * (part + 1)) / this.workers) * unit
    return { begin: Math.min(begin, count), end: Math.min(end, count) }
  }

  /** Offset of the records of some activation format made from `normed` or the attention's output; f32 records are the rows themselves. */
  recordsAt(activation: Activation, rows: number): number {
    return activation === 'f32' ? rows : this.program.arena.records[activation]
  }

  /** As `recordsAt`, for hidden rows of a feed-forward network. */
  ffnRecordsAt(activation: Activation): number {
    const { arena } = this.program
    return activation === 'f32' ? arena.ffnHidden : arena.ffnRecords[activation]
  }

  /** Quantises rows [begin, end) of f32[*, columns] at `from` into records at `to`; f32 needs nothing done. */
  quantize(arena: WorkerArena, activation: Activation, to: number, from: number, columns: number, { begin, end }: Share): void {
    if (activation === 'f32' || begin >= end) return
    const record = recordBytes(activation, columns)
    check(arena.kernels.quantize(ACTIVATION[activation], to + begin * record, from + begin * columns * 4, columns, end - begin), 'quantize')
  }

  /** y[tokens, rows] = W x + bias over this worker's rows; `flags` as in `MATMUL`. */
  matmul(arena: WorkerArena, matrix: MatrixCall, flags: number, y: number, x: number, bias: number, tokens: number): void {
    const { begin, end } = this.share(matrix.rows, 8)
    if (begin >= end) return
    const { format, rows, offset, columns } = matrix
    check(arena.kernels.matmul(format, flags, y, rows, offset, x, 0, 0, 0, bias, columns, begin, end, tokens, this.scratch), 'matmul')
  }
}
