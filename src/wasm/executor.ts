/**
 * The wasm executor as the main thread sees it: starts the pool over the plan's arenas, hands it steps through the port, and reads logits where
 * the pool has written them. Beside a device the pool gets hand-offs instead of steps, and the port is the device's.
 *
 *     starting --loaded--> serving --close--> closed
 *         \                   |
 *          +----- failed <----+      poisoned: every call rejects with the reason; close still works
 */
import { CONTROL, HANDOFF, LOADED_UNIT_BYTES } from '../abi/control.ts'
import type { BestLogits } from '../abi/step.ts'
import { debugLog, msSince } from '../diagnostics/debug.ts'
import { TandemError } from '../errors.ts'
import type { Program } from '../pipeline/program.ts'
import type { Load } from '../placement/loads.ts'
import { arenaBuffer, createArena } from '../ring/arena.ts'
import { adviseHugePages } from '../native/huge-pages.ts'
import { type FileRange, mapFile } from '../native/map-file.ts'
import { Ring } from '../ring/ring.ts'
import { started } from '../ring/started.ts'
import { StepPort, type StepSlot } from '../ring/step-port.ts'
import { delay, waitWhileAsync } from '../ring/wait.ts'
import { StageTimes } from '../trace/stage-times.ts'
import { Timeline } from '../trace/timeline.ts'
import type { TraceLabel, TraceRow } from '../trace/trace-event.ts'
import { bestLogit } from './best-logit.ts'
import { compileKernels, type Kernels } from './kernels.ts'
import { checkPanelLayout } from './panel-layout.ts'
import { UserStageHost } from '../user-stages/host.ts'
import { ServePool } from './pool.ts'
import type { PanelFile, ServeTask } from './protocol.ts'

/** A file of panels, and what of it is mapped instead of read. */
export interface MappedPanels extends PanelFile {
  readonly maps: readonly FileRange[]
  /** The layout of its panels (`panel-layout.ts`). */
  readonly layout: string
}

/** What the executor needs to start. */
export interface WasmExecutorOptions {
  readonly program: Program
  readonly arenaBytes: readonly number[]
  readonly moduleBytes: number
  readonly loads: readonly Load[]
  readonly paths: readonly string[]
  /** Weights that come from a sidecar; its descriptor stays open until the executor is ready or closed. */
  readonly panels?: MappedPanels | undefined
  readonly threads: number
  /** Logical cores; decides whether waiting threads may spin. */
  readonly cores: number
  readonly ringDepth: number
  /** Longest that a wait inside a step, or a load without progress, may take, ms. */
  readonly deadlineMs: number
  /** The port of the device whose hand-offs the pool takes, for a program with `entries`. Default: a port of its own, for steps. */
  readonly port?: StepPort | undefined
  /** Whether workers record the time of every call. Default false. */
  readonly profile?: boolean | undefined
  /** Events that each worker records, for a trace. Default 0. */
  readonly traceEvents?: number | undefined
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((doneBytes: number, totalBytes: number) => void) | undefined
}

/**
 * Waiting threads spin this often before they sleep, about 100 us, which is what a sleep and a wake of an idle core cost; only while there is
 * a core for each. Pocket model, 2 workers, 2 idle cores: 0, 100, 300, 1000 spins gave 270, 330, 700, 1340 tokens/s; with one core taken by
 * another process 770, 600, 450, 230, which is why barriers spin less when it does not help (`SpinBudget`): 1250 and 650 tokens/s.
 */
const SPINS = 1000

/**
 * The same beside a device, whose worker needs a core too: a millisecond, because what a worker waits for (a layer on the device, slower workers on many
 * cores) takes longer than that only between tokens. 15 workers, GLM-4.5-Air's experts: the last worker started 48 us after the others with 1000
 * spins, 6 us with these.
 */
const DEVICE_SPINS = 10_000

/** Bytes that loading reads. */
export const bytesToRead = ({ loads, panels }: Pick<WasmExecutorOptions, 'loads' | 'panels'>): number =>
  loads.reduce((sum, { fileBytes }) => sum + fileBytes, 0) + (panels?.copies ?? []).reduce((sum, { bytes }) => sum + bytes, 0)

const PROGRESS_MS = 50

const debug = debugLog('pool')

/** How long a closing pool may take before its threads are ended by force. */
const CLOSE_MS = 5000

/** See the file's header. Made by `startWasmExecutor`. */
export class WasmExecutor {
  readonly kernels: Kernels
  readonly port: StepPort
  /** Times of the calls, with `profile`. */
  readonly stageTimes: StageTimes | undefined
  /** What each worker did when, with `traceEvents`. */
  readonly timelines: readonly Timeline[]
  /** Of a program with user stages: what their functions tell. */
  readonly userStages: UserStageHost | undefined
  readonly #options: WasmExecutorOptions
  #arenas: readonly WebAssembly.Memory[]
  readonly #pool: ServePool
  readonly #served: Promise<void>
  #closed: Promise<void> | undefined

  /** `arenas`: untouched memory, of the sizes that the options say. */
  constructor(options: WasmExecutorOptions, kernels: Kernels, arenas: readonly WebAssembly.Memory[]) {
    this.kernels = kernels
    this.#options = options
    const { step, calls } = options.program
    this.port = options.port ?? new StepPort({ stepBytes: step.bytes, ringDepth: options.ringDepth, consumers: options.threads })
    this.#arenas = arenas
    this.stageTimes = options.profile ? new StageTimes(options.threads, calls.length) : undefined
    const { traceEvents = 0 } = options
    this.timelines = traceEvents > 0 ? Array.from({ length: options.threads }, () => new Timeline(traceEvents)) : []
    const { userStages } = options.program
    this.userStages = userStages && new UserStageHost({ ...options.program, userStages })
    this.#pool = new ServePool(options.threads)
    debug?.(`starting ${options.threads} workers on ${options.cores} cores, ${this.#spins()} spins before a wait sleeps`)
    const workers = Array.from({ length: options.threads }, (_, worker) => this.#serve(worker))
    this.#served = Promise.all(workers).then(() => undefined)
  }

  /** Runs one worker's task to its end; any end that nobody asked for fails the executor. */
  async #serve(worker: number): Promise<void> {
    const { threads, moduleBytes, program, loads, paths, panels, deadlineMs } = this.#options
    const { control, slots, slotBytes, ringDepth } = this.port
    const task: ServeTask = {
      worker,
      workers: threads,
      module: this.kernels.module,
      control,
      arenas: this.#arenas,
      moduleBytes,
      program,
      loads,
      paths,
      panels: panels && { path: panels.path, descriptor: panels.descriptor, copies: panels.copies },
      ringDepth,
      slots,
      slotBytes,
      spins: this.#spins(),
      deadlineMs,
      stageTimes: this.stageTimes?.buffer,
      timeline: this.timelines[worker]?.buffer,
      userStages: worker === 0 ? this.userStages?.task : undefined,
    }
    try {
      const { error } = await this.#pool.serve(task)
      debug?.(`worker ${worker} has ended${error ? `: ${error.code}: ${error.message}` : ''}`)
      if (error) this.port.fail(TandemError.fromRecord(error))
    } catch (error) {
      debug?.(`worker ${worker} has died: ${TandemError.from(error).message}`)
      this.port.fail(TandemError.from(error))
    }
  }

  /** Loads before a wait sleeps. */
  #spins(): number {
    const { threads, cores, program } = this.#options
    if (program.entries) return threads + 1 <= cores ? DEVICE_SPINS : 0
    return threads <= cores ? SPINS : 0
  }

  /** Why the executor failed, if it has. */
  get failure(): TandemError | undefined {
    return this.port.failure
  }

  /** The workers, as far as they have come. */
  get traceRows(): readonly TraceRow[] {
    const { calls } = this.#options.program
    const label = (entry: number): TraceLabel => {
      const call = calls[entry - 1]
      if (!call) return { name: 'begin' }
      return { name: call.stage, ...('layer' in call ? { layer: call.layer } : {}) }
    }
    return this.timelines.map((timeline, worker) => ({ name: `worker ${worker}`, group: 'wasm', label, timeline }))
  }

  /** The memories that hold the weights and what is handed from stage to stage. */
  get arenas(): readonly WebAssembly.Memory[] {
    return this.#arenas
  }

  /** Resolves when every worker has loaded its part and serves. */
  async whenReady(): Promise<void> {
    const { threads, signal, onProgress, deadlineMs } = this.#options
    const totalBytes = bytesToRead(this.#options)
    const begun = performance.now()
    let lastChange = begun
    let last = -1
    for (;;) {
      const ready = Atomics.load(this.port.words, CONTROL.ready)
      const loaded = Math.min(totalBytes, (Atomics.load(this.port.words, CONTROL.loaded) >>> 0) * LOADED_UNIT_BYTES)
      if (loaded + ready !== last) {
        last = loaded + ready
        lastChange = performance.now()
        onProgress?.(loaded, totalBytes)
      }
      // after onProgress, which may be what aborts, even with the last of the bytes
      if (signal?.aborted) throw new TandemError('ERR_ABORTED', 'loading was aborted', { cause: signal.reason })
      if (ready === threads) {
        debug?.(`${threads} workers serve; ${totalBytes} bytes read in ${msSince(begun)}`)
        return this.userStages?.whenReady(deadlineMs)
      }
      if (performance.now() - lastChange > deadlineMs) throw new TandemError('ERR_TIMEOUT', `loading made no progress for ${deadlineMs} ms`)
      try {
        await waitWhileAsync(this.port.words, CONTROL.ready, ready, { deadlineMs: PROGRESS_MS, what: 'the pool to load' })
      } catch (error) {
        if (TandemError.from(error).code !== 'ERR_TIMEOUT') await this.port.rethrow(error)
      }
    }
  }

  /** As `StepPort`. */
  tryClaim(): StepSlot | undefined {
    return this.port.tryClaim()
  }

  /** As `StepPort`. */
  publish(slot: StepSlot): void {
    this.port.publish(slot)
  }

  /** As `StepPort`. */
  cancel(slot: StepSlot): void {
    this.port.cancel(slot)
  }

  /** As `StepPort`. */
  whenCompleted(slot: StepSlot): Promise<boolean> {
    return this.port.whenCompleted(slot)
  }

  /** f32[vocabulary] of an output row of the last completed step; a view that the next step overwrites. */
  logits(row: number): Float32Array<SharedArrayBuffer> {
    const { arena, shape } = this.#options.program
    return this.#headRow(arena.logits, row, shape.vocabulary)
  }

  /** The best logit of an output row of the last completed step, which must have asked for the best; the workers have found it. */
  best(row: number): BestLogits {
    const { program, threads } = this.#options
    return bestLogit(arenaBuffer(this.#headArena()), program.arena, threads, row)
  }

  /** f32[hidden] of an output row of the last completed step, as the head saw it: after the model's last norm. A view as `logits` gives. */
  hidden(row: number): Float32Array<SharedArrayBuffer> {
    const { arena, shape } = this.#options.program
    return this.#headRow(arena.normed, row, shape.hidden)
  }

  /** The head's arena, which the program ends in. */
  #headArena(): WebAssembly.Memory {
    const memory = this.#arenas[this.#options.program.calls.at(-1)?.arena ?? 0]
    if (!memory) throw new TandemError('ERR_CLOSED', 'the executor has been closed')
    return memory
  }

  /** A row of f32[*, columns] at an offset of the head's arena. */
  #headRow(offset: number, row: number, columns: number): Float32Array<SharedArrayBuffer> {
    return new Float32Array(arenaBuffer(this.#headArena()), offset + row * columns * 4, columns)
  }

  /** Stops the workers and ends their threads. Steps in flight are abandoned. May be called at any time, any number of times. */
  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  async #close(): Promise<void> {
    const begun = performance.now()
    this.userStages?.stop()
    this.port.stop(this.#options.program.entries && new Ring(this.port.words, CONTROL.handoff + HANDOFF.published, 1, 1))
    await Promise.race([this.#served, delay(CLOSE_MS)])
    await this.#pool.destroy()
    await this.userStages?.close()
    debug?.(`closed in ${msSince(begun)}`)
    // whoever still holds the closed engine shall not hold the weights
    this.#arenas = []
  }

  /** Ends one worker without warning: for fault tests. */
  killWorker(index: number): Promise<void> {
    return this.#pool.kill(index)
  }
}

async function mapPanels({ path, descriptor, maps }: MappedPanels, arenas: readonly WebAssembly.Memory[]): Promise<void> {
  const begun = performance.now()
  await mapFile(descriptor, arenas, maps)
  debug?.(`${maps.length} ranges of ${path} mapped in ${msSince(begun)}`)
}

/** Starts the pool, which begins to load the weights. Throws `ERR_MEMORY`, `ERR_SIDECAR_STALE`. */
export async function makeWasmExecutor(options: WasmExecutorOptions): Promise<WasmExecutor> {
  const { arenaBytes, panels } = options
  const kernels = await compileKernels()
  if (panels) checkPanelLayout(panels, kernels)
  const begun = performance.now()
  const arenas = arenaBytes.map(createArena)
  const isAdvised = await adviseHugePages(arenas)
  debug?.(`${arenas.length} arenas reserved in ${msSince(begun)}, huge pages ${isAdvised ? 'asked for' : 'not to be had'}`)
  if (panels) await mapPanels(panels, arenas)
  return new WasmExecutor(options, kernels, arenas)
}

/** As `makeWasmExecutor`, and waits for the weights. On any failure everything is released before it rejects. */
export async function startWasmExecutor(options: WasmExecutorOptions): Promise<WasmExecutor> {
  return started(await makeWasmExecutor(options))
}
