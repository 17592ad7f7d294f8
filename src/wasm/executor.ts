/**
 * The wasm executor as the main thread sees it: starts the pool over the plan's arenas, hands it steps through the ring, and reads logits where
 * the pool has written them.
 *
 *     starting --loaded--> serving --close--> closed
 *         \                   |
 *          +----- failed <----+      poisoned: every call rejects with the reason; close still works
 */
import { CONTROL, LOADED_UNIT_BYTES } from '../abi/control.ts'
import { STEP_HEADER, STEP_OUTCOME } from '../abi/step.ts'
import { TandemError } from '../errors.ts'
import type { Program } from '../pipeline/program.ts'
import type { Load } from '../placement/loads.ts'
import { arenaBuffer, createArena } from '../ring/arena.ts'
import { FanIn } from '../ring/fan-in.ts'
import { poison } from '../ring/poison.ts'
import { Ring, ringWords } from '../ring/ring.ts'
import { waitWhileAsync } from '../ring/wait.ts'
import { StageTimes } from '../trace/stage-times.ts'
import { compileKernels, type Kernels } from './kernels.ts'
import { ServePool } from './pool.ts'
import type { ServeTask } from './protocol.ts'

/** What the executor needs to start. */
export interface WasmExecutorOptions {
  readonly program: Program
  readonly arenaBytes: readonly number[]
  readonly moduleBytes: number
  readonly loads: readonly Load[]
  readonly paths: readonly string[]
  readonly threads: number
  /** Logical cores; decides whether waiting threads may spin. */
  readonly cores: number
  readonly ringDepth: number
  /** Longest that a wait inside a step, or a load without progress, may take, ms. */
  readonly deadlineMs: number
  /** Whether workers record the time of every call. Default false. */
  readonly profile?: boolean | undefined
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((doneBytes: number, totalBytes: number) => void) | undefined
}

/** A claimed ring slot: the engine writes the step's record here. */
export interface StepSlot {
  readonly sequence: number
  readonly words: Int32Array<SharedArrayBuffer>
}

/**
 * Waiting threads spin this often before they sleep, about 100 us, which is what a sleep and a wake of an idle core cost; only while there is
 * a core for each. Pocket model, 2 workers, 2 idle cores: 0, 100, 300, 1000 spins gave 270, 330, 700, 1340 tokens/s; with one core taken by
 * another process 770, 600, 450, 230, which is why barriers spin less when it does not help (`SpinBudget`): 1250 and 650 tokens/s.
 */
const SPINS = 1000

const PROGRESS_MS = 50

/** How long a closing pool may take before its threads are ended by force. */
const CLOSE_MS = 5000

/** Does not keep the process alive: the pool's threads do that while there is something to wait for. */
const delay = (ms: number): Promise<void> => new Promise((resolve) => void setTimeout(resolve, ms).unref())

/** See the file's header. Made by `startWasmExecutor`. */
export class WasmExecutor {
  readonly kernels: Kernels
  /** Times of the calls, with `profile`. */
  readonly stageTimes: StageTimes | undefined
  readonly #options: WasmExecutorOptions
  readonly #words: Int32Array<SharedArrayBuffer>
  readonly #control: WebAssembly.Memory
  #arenas: readonly WebAssembly.Memory[]
  readonly #slots: number
  readonly #slotBytes: number
  readonly #ring: Ring
  readonly #pool: ServePool
  readonly #served: Promise<void>
  #failure: TandemError | undefined
  #isClosing = false
  #closed: Promise<void> | undefined

  constructor(options: WasmExecutorOptions, kernels: Kernels) {
    this.kernels = kernels
    this.#options = options
    const { step, calls } = options.program
    const controlWords = CONTROL.ring + ringWords(options.ringDepth)
    this.#slots = Math.ceil((controlWords * 4) / 64) * 64
    this.#slotBytes = Math.ceil(step.bytes / 64) * 64
    this.#control = createArena(this.#slots + this.#slotBytes * options.ringDepth)
    this.#arenas = options.arenaBytes.map(createArena)
    this.#words = new Int32Array(arenaBuffer(this.#control))
    this.#ring = new Ring(this.#words, CONTROL.ring, options.ringDepth, options.threads)
    this.stageTimes = options.profile ? new StageTimes(options.threads, calls.length) : undefined
    this.#pool = new ServePool(options.threads)
    const workers = Array.from({ length: options.threads }, (_, worker) => this.#serve(worker))
    this.#served = Promise.all(workers).then(() => undefined)
  }

  /** Runs one worker's task to its end; any end that nobody asked for fails the executor. */
  async #serve(worker: number): Promise<void> {
    const { threads, cores, moduleBytes, program, loads, paths, ringDepth, deadlineMs } = this.#options
    const task: ServeTask = {
      worker,
      workers: threads,
      module: this.kernels.module,
      control: this.#control,
      arenas: this.#arenas,
      moduleBytes,
      program,
      loads,
      paths,
      ringDepth,
      slots: this.#slots,
      slotBytes: this.#slotBytes,
      spins: threads <= cores ? SPINS : 0,
      deadlineMs,
      stageTimes: this.stageTimes?.buffer,
    }
    try {
      const { error } = await this.#pool.serve(task)
      if (error) this.#fail(TandemError.fromRecord(error))
    } catch (error) {
      this.#fail(TandemError.from(error))
    }
  }

  /** Remembers the first reason and wakes everyone. Workers that fail because they were poisoned are not a reason; the one that is follows. */
  #fail(error: TandemError): void {
    if (this.#isClosing || error.code === 'ERR_POISONED') return
    this.#failure ??= error
    this.#poison()
  }

  #poison(): void {
    const barrier = new FanIn(this.#words, CONTROL.barrier, this.#options.threads)
    poison(this.#words, [barrier.epochWord, ...this.#ring.waitWords, CONTROL.ready])
  }

  /** Why the executor failed, if it has. */
  get failure(): TandemError | undefined {
    return this.#failure
  }

  /** Throws the failure that poisoned the pool; it may be told a moment later than the poison is seen. */
  async #rethrow(cause: unknown): Promise<never> {
    const error = TandemError.from(cause)
    if (error.code !== 'ERR_POISONED') throw error
    if (this.#isClosing) throw new TandemError('ERR_CLOSED', 'the executor has been closed')
    for (let waited = 0; waited < 1000 && this.#failure === undefined; waited += 10) await delay(10)
    throw this.#failure ?? error
  }

  /** Resolves when every worker has loaded its part and serves. */
  async whenReady(): Promise<void> {
    const { threads, loads, signal, onProgress, deadlineMs } = this.#options
    const totalBytes = loads.reduce((sum, load) => sum + load.fileBytes, 0)
    let lastChange = performance.now()
    let last = -1
    for (;;) {
      const ready = Atomics.load(this.#words, CONTROL.ready)
      const loaded = Math.min(totalBytes, (Atomics.load(this.#words, CONTROL.loaded) >>> 0) * LOADED_UNIT_BYTES)
      if (loaded + ready !== last) {
        last = loaded + ready
        lastChange = performance.now()
        onProgress?.(loaded, totalBytes)
      }
      // after onProgress, which may be what aborts, even with the last of the bytes
      if (signal?.aborted) throw new TandemError('ERR_ABORTED', 'loading was aborted', { cause: signal.reason })
      if (ready === threads) return
      if (performance.now() - lastChange > deadlineMs) throw new TandemError('ERR_TIMEOUT', `loading made no progress for ${deadlineMs} ms`)
      try {
        await waitWhileAsync(this.#words, CONTROL.ready, ready, { deadlineMs: PROGRESS_MS, what: 'the pool to load' })
      } catch (error) {
        if (TandemError.from(error).code !== 'ERR_TIMEOUT') await this.#rethrow(error)
      }
    }
  }

  /** A free slot, or undefined when as many steps are in flight as the ring is deep. Throws the failure. */
  tryClaim(): StepSlot | undefined {
    if (this.#failure) throw this.#failure
    if (this.#isClosing) throw new TandemError('ERR_CLOSED', 'the executor has been closed')
    const sequence = this.#ring.tryClaim()
    if (sequence === undefined) return undefined
    const offset = this.#slots + this.#ring.slotOf(sequence) * this.#slotBytes
    return { sequence, words: new Int32Array(arenaBuffer(this.#control), offset, this.#slotBytes / 4) }
  }

  /** Hands a written slot to the pool. */
  publish({ sequence, words }: StepSlot): void {
    Atomics.store(words, STEP_HEADER.cancel, 0)
    Atomics.store(words, STEP_HEADER.outcome, STEP_OUTCOME.done)
    this.#ring.publish(sequence)
  }

  /** Asks the pool to abandon a published step before its next stage. */
  cancel({ words }: StepSlot): void {
    Atomics.store(words, STEP_HEADER.cancel, 1)
  }

  /** Resolves when a published step has ended: true when it was computed, false when it was cancelled. Throws the failure. */
  async whenCompleted({ sequence, words }: StepSlot): Promise<boolean> {
    try {
      await this.#ring.whenCompleted(sequence, { deadlineMs: Infinity, what: 'a step' })
    } catch (error) {
      await this.#rethrow(error)
    }
    return Atomics.load(words, STEP_HEADER.outcome) === STEP_OUTCOME.done
  }

  /** f32[vocabulary] of an output row of the last completed step; a view that the next step overwrites. */
  logits(row: number): Float32Array<SharedArrayBuffer> {
    const { arena, shape, calls } = this.#options.program
    const head = calls.at(-1)
    const memory = this.#arenas[head?.arena ?? 0]
    if (!memory) throw new TandemError('ERR_CLOSED', 'the executor has been closed')
    return new Float32Array(arenaBuffer(memory), arena.logits + row * shape.vocabulary * 4, shape.vocabulary)
  }

  /** Stops the workers and ends their threads. Steps in flight are abandoned. May be called at any time, any number of times. */
  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  async #close(): Promise<void> {
    this.#isClosing = true
    Atomics.store(this.#words, CONTROL.stop, 1)
    // With a step in flight some workers may see the stop before it and some after, and wait for each other: poison takes all out of it.
    const isIdle = this.#ring.published === this.#ring.completed
    const sequence = isIdle && !this.#failure ? this.#ring.tryClaim() : undefined
    if (sequence === undefined) this.#poison()
    else this.#ring.publish(sequence)
    await Promise.race([this.#served, delay(CLOSE_MS)])
    await this.#pool.destroy()
    // whoever still holds the closed engine shall not hold the weights
    this.#arenas = []
  }

  /** Ends one worker without warning: for fault tests. */
  killWorker(index: number): Promise<void> {
    return this.#pool.kill(index)
  }
}

/** Starts the pool and loads the weights. On any failure everything is released before it rejects. */
export async function startWasmExecutor(options: WasmExecutorOptions): Promise<WasmExecutor> {
  const executor = new WasmExecutor(options, await compileKernels())
  try {
    await executor.whenReady()
    return executor
  } catch (error) {
    await executor.close()
    throw error
  }
}
