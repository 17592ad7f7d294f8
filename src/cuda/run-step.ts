/**
 * Runs steps on a device: takes a step's record over, queues the program, and watches until the device has finished.
 *
 *     decode    begin, launch of a graph .................................. watch
 *     prefill   begin, layer 0, layer 1 | watch until the pool is at most one layer behind | layer 2 | ... | watch
 */
import { CONTROL, HANDOFF } from '../abi/control.ts'
import { CUDA_STATUS } from '../abi/cuda.ts'
import { KV_BLOCK_TOKENS } from '../abi/kernels.ts'
import { RUN_WORDS, STEP_HEADER, STEP_OUTCOME } from '../abi/step.ts'
import type { CudaProgram } from '../pipeline/program.ts'
import { GRAPH_TOKENS, Graphs, keysBucket } from './graphs.ts'
import { type CudaFunctions, type CudaStruct, type Handle, statusError } from './library.ts'
import type { CudaStats } from './protocol.ts'
import { queueStage } from './stages.ts'
import type { StepTracer } from './step-tracer.ts'
import { Watch } from './watch.ts'

/** What steps are run with. */
export interface StepRunnerOptions {
  readonly tcu: CudaFunctions
  readonly engine: Handle
  readonly program: CudaProgram
  /** The control block, and its address. */
  readonly words: Int32Array<SharedArrayBuffer>
  readonly address: number
  readonly spins: number
  readonly deadlineMs: number
  /** Where a trace is wanted. */
  readonly tracer: StepTracer | undefined
}

/** Hand-offs that may be queued and not completed while more is queued. */
const HANDOFFS_AHEAD = 1

/** The device's words tell of failures a moment after its own deadline; ours must come later, because it knows less. */
const GRACE_MS = 1000

/** See the file's header. */
export class StepRunner {
  readonly #options: StepRunnerOptions
  readonly #watch: Watch
  readonly #graphs: Graphs
  /** Hand-offs and steps queued since the beginning; they wrap as the device's counts do. */
  #handoffs = 0
  #steps = 0
  #graphSteps = 0

  constructor(options: StepRunnerOptions) {
    const { tcu, engine, words, spins, deadlineMs } = options
    this.#options = options
    this.#watch = new Watch({
      words,
      spins,
      deadlineMs: deadlineMs + GRACE_MS,
      checkDevice: () => void tcu.tcu_is_idle(engine),
    })
    this.#graphs = new Graphs(tcu, engine)
  }

  /** What was run so far. */
  get stats(): CudaStats {
    return { steps: this.#steps, graphSteps: this.#graphSteps }
  }

  /** Runs the step whose record is at byte offset `slot`. Throws `ERR_POISONED`, `ERR_TIMEOUT`, `ERR_KERNEL`, `ERR_DEVICE`, `ERR_DEVICE_LOST`. */
  run(slot: number): void {
    const { tcu, engine, words, tracer } = this.#options
    tracer?.begin()
    const header = words.subarray(slot / 4)
    const exact = this.#stepStruct(header, slot)
    const { tokenCount, runCount, outputCount } = exact
    const isDecode = tokenCount === runCount && tokenCount <= GRAPH_TOKENS
    const step = isDecode ? { ...exact, mostKeys: this.#bucket(exact.mostKeys) } : exact
    tcu.tcu_begin_step(engine, step)
    const key = `${tokenCount} ${runCount} ${outputCount} ${step.mostKeys}`
    const graph = isDecode ? this.#graphs.get(key, () => this.#queueAll(outputCount)) : undefined
    const isWhole = graph === undefined ? this.#queueWatched(header) : this.#launch(graph)
    this.#steps = (this.#steps + 1) | 0
    tracer?.queued()
    this.#watch.until(() => ((this.#watch.finished - this.#steps) | 0) >= 0)
    const status = Atomics.load(words, CONTROL.handoff + HANDOFF.status)
    if (status !== CUDA_STATUS.ok) throw statusError(status, 'a step on the device')
    if (isWhole) tracer?.finished()
    Atomics.store(header, STEP_HEADER.outcome, isWhole ? STEP_OUTCOME.done : STEP_OUTCOME.cancelled)
  }

  #bucket(mostKeys: number): number {
    return keysBucket(mostKeys, this.#options.program.step.blocksPerSequence * KV_BLOCK_TOKENS)
  }

  #stepStruct(header: Int32Array<SharedArrayBuffer>, slot: number): CudaStruct<'step'> {
    const { program, address } = this.#options
    const { step: at } = program
    const base = address + slot
    const runCount = header[STEP_HEADER.runs]!
    let mostKeys = 1
    for (let run = 0; run < runCount; run++) {
      const first = header[at.runs / 4 + run * RUN_WORDS]!
      const last = first + header[at.runs / 4 + run * RUN_WORDS + 1]! - 1
      mostKeys = Math.max(mostKeys, header[at.positions / 4 + last]! + 1)
    }
    return {
      tokenIds: base + at.tokenIds,
      positions: base + at.positions,
      cacheRows: base + at.cacheRows,
      outputs: base + at.outputs,
      runs: base + at.runs,
      blockTables: base + at.blockTables,
      tokenCount: header[STEP_HEADER.tokens]!,
      runCount,
      outputCount: header[STEP_HEADER.outputs]!,
      mostKeys,
    }
  }

  #launch(graph: Handle): true {
    const { tcu, engine, program } = this.#options
    tcu.tcu_graph_launch(engine, graph)
    this.#graphSteps++
    for (const { stage } of program.calls) this.#count(stage)
    return true
  }

  /** Queues everything, for a graph: nothing runs, so nothing is counted. */
  #queueAll(outputs: number): void {
    const { tcu, engine, program } = this.#options
    this.#mark(0)
    program.calls.forEach((call, index) => {
      if (call.stage !== 'head' || outputs > 0) queueStage(tcu, engine, call)
      this.#mark(index + 1)
    })
    tcu.tcu_end_step(engine)
  }

  /**
   * Queues call by call, never far ahead of the pool, and wakes the pool meanwhile. False when the step was cancelled, which is looked at
   * between layers: inside one, a hand-off that was published must also be awaited.
   */
  #queueWatched(header: Int32Array<SharedArrayBuffer>): boolean {
    const { tcu, engine, program } = this.#options
    const hasOutputs = header[STEP_HEADER.outputs]! > 0
    let layer = -1
    let isWhole = true
    this.#mark(0)
    for (const [index, call] of program.calls.entries()) {
      this.#watch.look()
      if (call.layer !== layer) {
        layer = call.layer
        this.#watch.until(() => ((this.#handoffs - this.#watch.completed) | 0) <= HANDOFFS_AHEAD)
        isWhole = Atomics.load(header, STEP_HEADER.cancel) === 0
        if (!isWhole) break
      }
      if (call.stage !== 'head' || hasOutputs) queueStage(tcu, engine, call)
      this.#count(call.stage)
      this.#mark(index + 1)
    }
    tcu.tcu_end_step(engine)
    return isWhole
  }

  #count(stage: CudaProgram['calls'][number]['stage']): void {
    if (stage === 'publish') this.#handoffs = (this.#handoffs + 1) | 0
  }

  /** The device's clock behind call `index - 1`, where a trace is wanted. */
  #mark(index: number): void {
    const { tcu, engine, tracer } = this.#options
    if (tracer) tcu.tcu_mark(engine, index)
  }
}
