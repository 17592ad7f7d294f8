/**
 * A GPU as the main thread sees it: starts the CUDA worker, has it load the weights, and reads logits where the device has written them. Steps
 * go through the port, which beside a pool is the pool's too.
 *
 *     opening --> loading --> serving --close--> closed
 *         \          |           |
 *          +------ failed <------+      poisoned: every call rejects with the reason; close still works
 */
import { LOADED_UNIT_BYTES } from '../abi/control.ts'
import type { BestLogits } from '../abi/step.ts'
import { debugLog, msSince } from '../diagnostics/debug.ts'
import { TandemError } from '../errors.ts'
import type { CudaProgram } from '../pipeline/program.ts'
import type { DeviceLoad } from '../placement/device-loads.ts'
import type { ArenaLayout, CudaPlan } from '../placement/types.ts'
import type { StepPort } from '../ring/step-port.ts'
import { arenaBuffer } from '../ring/arena.ts'
import { delay } from '../ring/wait.ts'
import { Timeline } from '../trace/timeline.ts'
import type { TraceLabel, TraceRow } from '../trace/trace-event.ts'
import { UserStageHost } from '../user-stages/host.ts'
import type { Handle } from './library.ts'
import { type CudaStats, type CudaTask, WORKER_ENTRIES } from './protocol.ts'
import { LOADED_WORD, markCount, Results } from './results.ts'
import { CudaWorkerClient } from './worker-client.ts'

/** What the executor needs to start. */
export interface CudaExecutorOptions {
  /** The library's file. */
  readonly library: string
  readonly plan: CudaPlan
  readonly program: CudaProgram
  readonly loads: readonly DeviceLoad[]
  readonly paths: readonly string[]
  /** One consumer: the CUDA worker. */
  readonly port: StepPort
  /** The pool's arenas, and the layout of their prefix, where the pool has routed experts. */
  readonly arenas?: readonly WebAssembly.Memory[]
  readonly arena?: ArenaLayout | undefined
  /** Threads of the pool; 0 without one. */
  readonly threads: number
  /** Logical cores; decides whether the waiting worker may spin. */
  readonly cores: number
  /** Longest that a step, or a load, may stand still, ms. */
  readonly deadlineMs: number
  /** Events that the device and the worker each record, for a trace. Default 0. */
  readonly traceEvents?: number | undefined
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((doneBytes: number, totalBytes: number) => void) | undefined
}

/**
 * The waiting worker looks this often before it sleeps, about 2 ms, while there is a core for it: a layer on the device takes a few hundred
 * microseconds, and what lies between two tokens as well. Between tokens the main thread needs a core too: with 15 workers on 16 cores a worker that
 * span on kept it waiting for 0.45 ms, a tenth of the token.
 */
const SPINS = 20_000

/** The same for the steerers' thread, which is called at once or after a token: about 100 us. */
const STEERER_SPINS = 1000

const PROGRESS_MS = 50

const debug = debugLog('cuda')

/** How long a closing worker may take before it is ended by force. */
const CLOSE_MS = 5000

/** Memory of engines that could not be closed: their device may still write to it, so it is never given back. */
const abandoned: WebAssembly.Memory[] = []

/** See the file's header. Loads when it is made; `whenReady` tells. */
export class CudaExecutor {
  readonly port: StepPort
  /** What the device's stream and the worker did when, with `traceEvents`. */
  readonly timelines: { readonly stream: Timeline; readonly worker: Timeline } | undefined
  /** Of a program with user stages: what their functions tell. */
  readonly userStages: UserStageHost | undefined
  readonly #options: Omit<CudaExecutorOptions, 'arenas'>
  #arenas: readonly WebAssembly.Memory[]
  readonly #client = new CudaWorkerClient()
  #results: Results | undefined
  #handle: Handle | undefined
  #served: Promise<CudaStats | undefined> | undefined
  #closed: Promise<void> | undefined
  #hasLoaded = false
  readonly #loaded: Promise<void>

  constructor({ arenas = [], ...options }: CudaExecutorOptions) {
    this.port = options.port
    this.#options = options
    this.#arenas = arenas
    const { traceEvents = 0 } = options
    if (traceEvents > 0) this.timelines = { stream: new Timeline(traceEvents), worker: new Timeline(traceEvents) }
    this.#results = new Results(options.program, options.plan.shape.top, markCount(options.program, traceEvents > 0))
    this.userStages = this.#startUserStages(this.#results)
    this.#loaded = this.#load()
    // told by whenReady
    this.#loaded.catch(() => undefined)
    void this.#client.whenDead.then((error) => this.port.fail(error))
  }

  async #load(): Promise<void> {
    const begun = performance.now()
    try {
      const task = this.#task()
      this.#handle = await this.#client.open(task)
      debug?.(`device ${task.plan.device} opened, ${this.#arenas.length} arenas registered: ${msSince(begun)}`)
      await this.#client.call((api) => api.load())
      debug?.(`${task.loads.length} tensors uploaded, serving: ${msSince(begun)}`)
      this.#served = this.#serve()
    } catch (error) {
      this.port.fail(TandemError.from(error))
      throw error
    } finally {
      this.#hasLoaded = true
    }
  }

  /** Steerers get a thread of their own: the worker has a GPU to look after. */
  #startUserStages({ memory }: Results): UserStageHost | undefined {
    const { program, threads, cores } = this.#options
    if (!program.user) return undefined
    return new UserStageHost(program.user, {
      memory: arenaBuffer(memory),
      spins: threads + 2 <= cores ? STEERER_SPINS : 0,
      onDead: (error) => this.port.fail(error),
    })
  }

  #task(): CudaTask {
    const { library, plan, program, loads, paths, arena, threads, cores, deadlineMs } = this.#options
    const { control, ringDepth, slots, slotBytes } = this.port
    return {
      library,
      plan,
      program,
      loads,
      paths,
      control,
      ringDepth,
      slots,
      slotBytes,
      arenas: this.#arenas,
      arena,
      results: this.#results!.memory,
      spins: threads + 1 <= cores ? SPINS : 0,
      idleSpins: threads + 2 <= cores ? SPINS : 0,
      deadlineMs,
      trace: this.timelines && { stream: this.timelines.stream.buffer, worker: this.timelines.worker.buffer },
      userStages: this.userStages?.task,
    }
  }

  /** Any end that nobody asked for fails the executor. */
  async #serve(): Promise<CudaStats | undefined> {
    try {
      const stats = await this.#client.call((api) => api.serve())
      debug?.(`served ${stats.steps} steps, ${stats.graphSteps} of them as recorded graphs`)
      return stats
    } catch (error) {
      this.port.fail(TandemError.from(error))
      return undefined
    }
  }

  /** Resolves when the weights are on the device and the worker serves. Throws why it does not, `ERR_ABORTED`, `ERR_TIMEOUT`. */
  async whenReady(): Promise<void> {
    const { loads, signal, onProgress, deadlineMs } = this.#options
    const totalBytes = loads.reduce((sum, load) => sum + load.fileBytes, 0)
    let lastChange = performance.now()
    let last = -1
    for (;;) {
      await Promise.race([this.#loaded, delay(PROGRESS_MS)]).catch((error: unknown) => this.port.rethrow(error))
      const words = this.#results?.words
      if (this.port.failure) throw this.port.failure
      if (!words) throw new TandemError('ERR_CLOSED', 'the executor has been closed')
      const loaded = Math.min(totalBytes, (Atomics.load(words, LOADED_WORD) >>> 0) * LOADED_UNIT_BYTES)
      if (loaded !== last) {
        last = loaded
        lastChange = performance.now()
        onProgress?.(loaded, totalBytes)
      }
      // after onProgress, which may be what aborts, even with the last of the bytes
      if (signal?.aborted) throw new TandemError('ERR_ABORTED', 'loading was aborted', { cause: signal.reason })
      if (this.#hasLoaded) return this.userStages?.whenReady(deadlineMs)
      if (performance.now() - lastChange > deadlineMs) throw new TandemError('ERR_TIMEOUT', `loading made no progress for ${deadlineMs} ms`)
    }
  }

  /** The device's stream and the worker, as far as they have come. */
  get traceRows(): readonly TraceRow[] {
    if (!this.timelines) return []
    const { stream, worker } = this.timelines
    const { plan, program } = this.#options
    const name = `cuda:${plan.device}`
    const stages = (entry: number): TraceLabel => {
      const { stage, layer } = program.calls[entry - 1]!
      return { name: stage, ...(layer < 0 ? {} : { layer }) }
    }
    return [
      { name: `${name} stream`, group: 'cuda', label: stages, timeline: stream },
      { name: `${name} worker`, group: 'cuda', label: (entry) => ({ name: WORKER_ENTRIES[entry]! }), timeline: worker },
    ]
  }

  /** f32[vocabulary] of an output row of the last completed step; a view that the next step overwrites. */
  logits(row: number): Float32Array<SharedArrayBuffer> {
    if (!this.#results) throw new TandemError('ERR_CLOSED', 'the executor has been closed')
    return this.#results.logits(row)
  }

  /** f32[hidden] of an output row of the last completed step, after the model's last norm, if the step asked for it; a view as `logits` gives. */
  hidden(row: number): Float32Array<SharedArrayBuffer> {
    if (!this.#results) throw new TandemError('ERR_CLOSED', 'the executor has been closed')
    return this.#results.hidden(row)
  }

  /** The `count` best logits of an output row of the last completed step, which must have asked for as many; views, as `logits` gives. */
  best(row: number, count: number): BestLogits {
    if (!this.#results) throw new TandemError('ERR_CLOSED', 'the executor has been closed')
    return this.#results.best(row, count)
  }

  /** Stops the worker, closes the device and ends the thread. Steps in flight are abandoned. May be called at any time, any number of times. */
  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  async #close(): Promise<void> {
    const begun = performance.now()
    this.userStages?.stop()
    this.port.stop()
    const isClosed = await Promise.race([this.#closeDevice().catch(() => false), delay(CLOSE_MS).then(() => false)])
    if (!isClosed && this.#handle !== undefined) abandoned.push(this.port.control, ...this.#arenas, this.#results!.memory)
    // whoever still holds the closed engine shall not hold its memory
    this.#arenas = []
    this.#results = undefined
    await Promise.all([this.#client.terminate(), this.userStages?.close()])
    debug?.(`${isClosed ? 'closed' : 'given up'} in ${msSince(begun)}`)
  }

  /** True when the device has let go of all memory. */
  async #closeDevice(): Promise<boolean> {
    await this.#loaded.catch(() => undefined)
    await this.#served
    if (this.#handle === undefined) return true
    if (this.#client.isDead) await reclaim(this.#options.library, this.#handle)
    else await this.#client.call((api) => api.close())
    return true
  }

  /** What the worker did, once it has been closed in good order. */
  async stats(): Promise<CudaStats | undefined> {
    return await this.#served
  }

  /** Ends the worker without warning: for fault tests. */
  killWorker(): Promise<void> {
    return this.#client.terminate()
  }
}

/** Closes the device of a worker that has died, from another one. */
async function reclaim(library: string, handle: Handle): Promise<void> {
  const client = new CudaWorkerClient()
  try {
    await client.call((api) => api.reclaim(library, handle))
  } finally {
    await client.terminate()
  }
}
