/** What a worker of the pool knows: its kernels in every arena, the step at hand, its share of the work, and where the others are. */
import { ACTIVATION, type Activation, PANEL_ROWS } from '../abi/formats.ts'
import { CHUNK_COUNTERS, CONTROL } from '../abi/control.ts'
import { type KernelExports, recordBytes } from '../abi/kernels.ts'
import { STEP_HEADER, STEP_OUTCOME } from '../abi/step.ts'
import { invariant } from '../errors.ts'
import type { MatrixCall, Program, UserCall } from '../pipeline/program.ts'
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

/** Runs a call of a user stage. False when the step is to be abandoned. */
export type RunUserCall = (context: WorkerContext, call: UserCall) => boolean

/** Most panels of a chunk, where nothing else is said. */
const MAX_CHUNK_PANELS = 32

/** Panels that the kernels walk side by side: `STREAMS` of wasm/tiles.h. Those left over of a call take longer. */
const STREAMS = 4

/**
 * Panels of the next chunk when `left` are left: half of what every worker could still get, so that chunks are large, because a call has a cost, until
 * the end is near, and then so small that nobody waits long for whoever takes the last.
 */
function chunkPanels(left: number, workers: number, most: number): number {
  const panels = Math.min(most, Math.ceil(left / (2 * workers)))
  return panels > STREAMS ? panels - (panels % STREAMS) : panels
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
  /** Number of the current step, and its header in the ring slot; absent beside a device, which hands over no steps. */
  step = 0
  header: Int32Array<SharedArrayBuffer> | undefined
  /** Worker 0, where the program has user stages: runs them. */
  runUserCall: RunUserCall | undefined
  /** Products shared out since the last barrier; the same for all workers. */
  #products = 0
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

  /** Waits until every worker is here: what they wrote before is visible after. `onLast`: run by one of them before anyone goes on. */
  sync(onLast?: () => void): void {
    this.#barrier.arriveAndWait(this.#wait, () => {
      onLast?.()
      this.#resetChunks()
    })
    this.#products = 0
  }

  /** As `sync`, and agrees on whether to go on: the last worker to arrive reads the step's cancel flag for all. True to abandon. */
  syncAndAgree(cancelWord: Int32Array<SharedArrayBuffer>): boolean {
    this.#barrier.arriveAndWait(this.#wait, () => {
      this.#resetChunks()
      Atomics.store(this.#control, CONTROL.abandon, Atomics.load(cancelWord, STEP_HEADER.cancel))
    })
    this.#products = 0
    return Atomics.load(this.#control, CONTROL.abandon) !== 0
  }

  /** Ends the current step as if it had been cancelled: all workers leave it together at the next call, and its results are read by nobody. */
  abandonStep(): void {
    invariant(this.header, 'there is no step to abandon')
    Atomics.store(this.header, STEP_HEADER.cancel, 1)
    // also when this was the last call, behind which nobody looks
    Atomics.store(this.header, STEP_HEADER.outcome, STEP_OUTCOME.cancelled)
  }

  /** The last worker to arrive has shared out as many products as all others, so its count says which counters were used. */
  #resetChunks(): void {
    for (let product = 0; product < this.#products; product++) Atomics.store(this.#control, CONTROL.chunks + product * 16, 0)
  }

  /**
   * Calls `visit(begin, end)` for chunks of `rows` rows until all are taken by one worker or another: a worker that is slowed down takes fewer.
   * Whole panels, at most `most` of them. Every worker must call it, in the same order, at most `CHUNK_COUNTERS` times between two barriers.
   */
  forEachChunk(rows: number, visit: (begin: number, end: number) => void, most = MAX_CHUNK_PANELS): void {
    if (this.workers === 1) return visit(0, rows)
    invariant(this.#products < CHUNK_COUNTERS, 'a stage shares out too many products between two barriers')
    const counter = CONTROL.chunks + this.#products++ * 16
    const panels = Math.ceil(rows / PANEL_ROWS)
    for (let chunk = 0, begin = 0; ;) {
      const mine = Atomics.add(this.#control, counter, 1)
      for (; chunk < mine && begin < panels; chunk++) begin += chunkPanels(panels - begin, this.workers, most)
      if (begin >= panels) return
      const end = begin + chunkPanels(panels - begin, this.workers, most)
      visit(begin * PANEL_ROWS, Math.min(rows, end * PANEL_ROWS))
    }
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

  /**
   * y[tokens, rows] = W x + bias over the rows that this worker gets; `flags` as in `MATMUL`. `visit`: called with each part of them, in ascending
   * order, when it is done.
   */
  matmul(
    arena: WorkerArena,
    matrix: MatrixCall,
    flags: number,
    y: number,
    x: number,
    bias: number,
    tokens: number,
    visit?: (begin: number, end: number) => void,
  ): void {
    const { format, rows, offset, columns } = matrix
    const all = flags | matrix.flags
    const { kernels } = arena
    this.forEachChunk(rows, (begin, end) => {
      check(kernels.matmul(format, all, y, rows, offset, x, 0, 0, 0, bias, columns, begin, end, tokens, this.scratch), 'matmul')
      visit?.(begin, end)
    })
  }
}
