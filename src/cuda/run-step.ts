/**
 * Runs steps on a device: takes a step's record over, queues the program, and watches until the device has finished.
 *
 *     decode    begin, launch of a graph .................................. watch
 *     prefill   begin, layer 0, layer 1 | watch until the pool is at most one layer behind | layer 2 | ... | watch
 *
 * With user stages a step may have several parts (`parts.ts`), each of them run like that, with the functions that see its end behind it.
 */
import { CONTROL, HANDOFF } from '../abi/control.ts'
import { CUDA_RESULTS, CUDA_STATUS } from '../abi/cuda.ts'
import { KV_BLOCK_TOKENS } from '../abi/kernels.ts'
import { RUN_WORDS, STEP_HEADER, STEP_OUTCOME } from '../abi/step.ts'
import type { CudaProgram } from '../pipeline/program.ts'
import { GRAPH_TOKENS, Graphs, keysBucket } from './graphs.ts'
import { type CudaFunctions, type CudaStruct, type Handle, statusError } from './library.ts'
import type { Part } from './parts.ts'
import type { CudaStats } from './protocol.ts'
import { PartQueue } from './queue-part.ts'
import type { Wanted } from './stages.ts'
import type { StepTracer } from './step-tracer.ts'
import type { UserCalls } from './user-calls.ts'
import { Watch } from './watch.ts'

/** What steps are run with. */
export interface StepRunnerOptions {
  readonly tcu: CudaFunctions
  readonly engine: Handle
  readonly program: CudaProgram
  /** Most best logits that can be told of an output. */
  readonly top: number
  /** The parts of a step with so many tokens. */
  readonly partsOf: (tokens: number) => readonly Part[]
  /** Of a program with user stages. */
  readonly userCalls: UserCalls | undefined
  /** The control block, and its address. */
  readonly words: Int32Array<SharedArrayBuffer>
  readonly address: number
  /** Address of the results' memory. */
  readonly results: number
  readonly spins: number
  readonly deadlineMs: number
  /** Where a trace is wanted. */
  readonly tracer: StepTracer | undefined
}

/** The step at hand. */
interface Running {
  /** The engine's number of it. */
  readonly sequence: number
  readonly header: Int32Array<SharedArrayBuffer>
  readonly step: CudaStruct<'step'>
  readonly isDecode: boolean
  readonly wanted: Wanted
}

/** The device's words tell of failures a moment after its own deadline; ours must come later, because it knows less. */
const GRACE_MS = 1000

/** See the file's header. */
export class StepRunner {
  readonly #options: StepRunnerOptions
  readonly #watch: Watch
  readonly #queue: PartQueue
  readonly #graphs: Graphs
  /** Parts of decode steps, by their numbers of tokens. */
  readonly #parts = new Map<number, readonly Part[]>()
  /** Parts queued since the beginning; they wrap as the device's count does. */
  #ended = 0
  #launched = 0
  #steps = 0
  #graphSteps = 0

  constructor(options: StepRunnerOptions) {
    const { tcu, engine, words, results, spins, deadlineMs, tracer } = options
    this.#options = options
    this.#watch = new Watch({
      words,
      spins,
      deadlineMs: deadlineMs + GRACE_MS,
      checkDevice: () => void tcu.tcu_is_idle(engine),
    })
    this.#queue = new PartQueue({ tcu, engine, watch: this.#watch, results, isTraced: tracer !== undefined })
    this.#graphs = new Graphs(tcu, engine, this.#partsOf(1).length)
  }

  /** What was run so far. */
  get stats(): CudaStats {
    return { steps: this.#steps, graphSteps: this.#graphSteps }
  }

  /**
   * Runs the step whose record is at byte offset `slot`. Throws `ERR_POISONED`, `ERR_TIMEOUT`, `ERR_KERNEL`, `ERR_DEVICE`, `ERR_DEVICE_LOST`.
   */
  run(slot: number, sequence: number): void {
    const { words, tracer, userCalls } = this.#options
    tracer?.begin()
    const header = words.subarray(slot / 4)
    const exact = this.#stepStruct(header, slot)
    const isDecode = exact.tokenCount === exact.runCount && exact.tokenCount <= GRAPH_TOKENS
    const step = isDecode ? { ...exact, mostKeys: this.#bucket(exact.mostKeys) } : exact
    const running: Running = { sequence, header, step, isDecode, wanted: this.#wanted(header) }
    userCalls?.begin(new Uint8Array(words.buffer, slot))
    const parts = this.#partsOf(exact.tokenCount)
    const launched = this.#launched
    const isWhole = this.#runParts(parts, running)
    this.#steps++
    if (this.#launched - launched === parts.length) this.#graphSteps++
    if (isWhole) tracer?.finished()
    else Atomics.store(header, STEP_HEADER.outcome, STEP_OUTCOME.cancelled)
  }

  /** Those of every length of prompt are not kept. */
  #partsOf(tokens: number): readonly Part[] {
    const known = this.#parts.get(tokens)
    if (known) return known
    const parts = this.#options.partsOf(tokens)
    if (tokens <= GRAPH_TOKENS) this.#parts.set(tokens, parts)
    return parts
  }

  /** False when the step was cancelled or abandoned. */
  #runParts(parts: readonly Part[], running: Running): boolean {
    const { userCalls } = this.#options
    const { header, step, sequence } = running
    const at = { step: sequence, tokens: step.tokenCount, runs: step.runCount, outputs: step.outputCount }
    let isLeft = false
    for (const [index, part] of parts.entries()) {
      if (!this.#runPart(part, index, running)) return false
      if (part.users.length === 0) continue
      isLeft ||= Atomics.load(header, STEP_HEADER.cancel) !== 0 || !userCalls!.run(part, at)
      // what was handed over must be awaited, and nobody has to be asked any more
      if (isLeft && !this.#queue.isHandedOver) return false
    }
    return !isLeft
  }

  /** Runs a part to its end. False when the step was cancelled in the middle of it. */
  #runPart(part: Part, index: number, { header, step, isDecode, wanted }: Running): boolean {
    const { tcu, engine, program, words, tracer } = this.#options
    tcu.tcu_begin_step(engine, step)
    const key = [index, step.tokenCount, step.runCount, step.outputCount, step.mostKeys, wanted.results, wanted.top].join(' ')
    const graph = isDecode ? this.#graphs.get(key, () => this.#queue.record(part, wanted)) : undefined
    let isWhole = true
    if (graph === undefined) isWhole = this.#queue.queueWatched(part, program.calls[part.first - 1]?.layer ?? -1, wanted, header)
    else {
      this.#queue.launch(part, graph)
      this.#launched++
    }
    this.#ended = (this.#ended + 1) | 0
    if (index === 0) tracer?.queued()
    this.#watch.until(() => ((this.#watch.finished - this.#ended) | 0) >= 0)
    const status = Atomics.load(words, CONTROL.handoff + HANDOFF.status)
    if (status !== CUDA_STATUS.ok) throw statusError(status, 'a step on the device')
    return isWhole
  }

  #bucket(mostKeys: number): number {
    return keysBucket(mostKeys, this.#options.program.step.blocksPerSequence * KV_BLOCK_TOKENS)
  }

  /** All logits of the outputs, or the best: of more than one as many as there can be, for the sake of fewer graphs. */
  #wanted(header: Int32Array<SharedArrayBuffer>): Wanted {
    const best = header[STEP_HEADER.best]!
    const logits = best === 0 ? CUDA_RESULTS.logits : 0
    const hidden = header[STEP_HEADER.hidden] === 0 ? 0 : CUDA_RESULTS.hidden
    return { outputs: header[STEP_HEADER.outputs]!, results: logits | hidden, top: best > 1 ? this.#options.top : best }
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
}
