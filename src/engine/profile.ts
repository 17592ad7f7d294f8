/**
 * The profile: where the time of a step goes, seen from both sides. The pool's workers tell how long each call took (`trace/stage-times.ts`); this
 * stands between the step loop and the executor and sees when steps are published and when their end is heard of.
 *
 *     main     publish ............................. completed .... publish ...
 *     pool        wake  begin  embed  attention ... head  wake       wake ...
 *              |<----------------- step ------------------>|<- hand-off ->|
 */
import { type BestLogits, STEP_HEADER } from '../abi/step.ts'
import { matricesOf, packedBytesOf } from '../pipeline/call-weights.ts'
import type { Program, StageCall } from '../pipeline/program.ts'
import type { StepSlot } from '../ring/step-port.ts'
import { type EntryTime, type StageTimes, type StepKind, stepKind } from '../trace/stage-times.ts'
import type { StepExecutor } from './step-loop.ts'

/** One stage's part in a step, all layers together; ms include `waitMs`, which workers spent waiting for each other. */
export interface StageProfile extends EntryTime {
  readonly stage: StageCall['stage']
  /** Calls in the program. */
  readonly calls: number
  /** Bytes of weight matrices that a decode step reads, each once; absent in prefill and wherever the step's tokens decide. */
  readonly weightBytes?: number
  /** `weightBytes` over `ms`. */
  readonly gbPerSecond?: number
}

/** The mean step of a kind. `ms` is the sum of `begin`, the stages, `wakeMs` and `handOffMs`. */
export interface StepProfile {
  /** Steps recorded, and tokens in them; without steps everything is 0. */
  readonly steps: number
  readonly tokens: number
  readonly ms: number
  /** The step's record and rope angles on their way to the arenas. */
  readonly begin: EntryTime
  readonly stages: readonly StageProfile[]
  /** Until the workers have woken up, and until the main thread has heard of the end. */
  readonly wakeMs: number
  /** From a completed step to the next one: sampling, text, scheduling, and whatever the caller does between two calls. */
  readonly handOffMs: number
}

/** Where the time went since loading or `Engine.resetProfile`, by kind of step. Plain data. */
export interface Profile {
  /** Steps of one token per sequence. */
  readonly decode: StepProfile
  /** Steps with more tokens of some sequence. */
  readonly prefill: StepProfile
}

interface Sums {
  steps: number
  tokens: number
  stepMs: number
  handOffMs: number
}

const noSums = (): Sums => ({ steps: 0, tokens: 0, stepMs: 0, handOffMs: 0 })

/** Bytes of weights that a call reads in a decode step; undefined where the tokens decide. `isSingle`: every step had one token. */
function weightBytes(call: StageCall, isSingle: boolean, expertsUsed: number): number | undefined {
  // an embedding row is not the embedding, and the other stages have no weights
  if (call.stage === 'embed' || call.stage === 'combine' || call.stage === 'transfer') return undefined
  const bytes = packedBytesOf(matricesOf(call))
  if (call.stage !== 'routedExperts') return bytes
  // tokens of one step may share experts; a layer's experts may be in several calls, of which the first stands for all
  if (!isSingle) return undefined
  return call.isFirst ? bytes * expertsUsed : 0
}

/** An executor whose steps are timed. */
export class Profiler implements StepExecutor {
  readonly #executor: StepExecutor
  readonly #times: StageTimes
  readonly #program: Program
  #sums: Record<StepKind, Sums> = { decode: noSums(), prefill: noSums() }
  #inFlight = 0
  /** When the oldest step in flight was published or came to be the oldest; with none in flight, when the last one was completed. */
  #since: number | undefined

  constructor(executor: StepExecutor, times: StageTimes, program: Program) {
    this.#executor = executor
    this.#times = times
    this.#program = program
    // what the pool ran while it started is nobody's step
    times.clear()
  }

  tryClaim(): StepSlot | undefined {
    return this.#executor.tryClaim()
  }

  publish(slot: StepSlot): void {
    const now = performance.now()
    if (this.#inFlight++ === 0) {
      this.#sumsOf(slot).handOffMs += now - (this.#since ?? now)
      this.#since = now
    }
    this.#executor.publish(slot)
  }

  cancel(slot: StepSlot): void {
    this.#executor.cancel(slot)
  }

  async whenCompleted(slot: StepSlot): Promise<boolean> {
    const isDone = await this.#executor.whenCompleted(slot)
    const now = performance.now()
    const sums = this.#sumsOf(slot)
    sums.steps++
    sums.tokens += slot.words[STEP_HEADER.tokens]!
    sums.stepMs += now - (this.#since ?? now)
    this.#inFlight--
    this.#since = now
    return isDone
  }

  logits(row: number): Float32Array<SharedArrayBuffer> {
    return this.#executor.logits(row)
  }

  best(row: number, count: number): BestLogits {
    return this.#executor.best!(row, count)
  }

  /** What was recorded so far. */
  profile(): Profile {
    return { decode: this.#stepProfile('decode'), prefill: this.#stepProfile('prefill') }
  }

  /** Forgets what was recorded. */
  reset(): void {
    this.#sums = { decode: noSums(), prefill: noSums() }
    this.#since = undefined
    this.#times.clear()
  }

  #sumsOf({ words }: StepSlot): Sums {
    return this.#sums[stepKind(words[STEP_HEADER.tokens]!, words[STEP_HEADER.runs]!)]
  }

  #stepProfile(kind: StepKind): StepProfile {
    const sums = this.#sums[kind]
    const { steps, tokens } = sums
    const perStep = (total: number): number => (steps > 0 ? total / steps : 0)
    const entry = (index: number): EntryTime => {
      const { ms, waitMs } = this.#times.mean(kind, index)
      return { ms: perStep(ms), waitMs: perStep(waitMs) }
    }
    const begin = entry(0)
    const stages = steps > 0 ? this.#stages(kind, entry) : []
    const inPoolMs = stages.reduce((sum, { ms }) => sum + ms, begin.ms)
    const stepMs = perStep(sums.stepMs)
    const handOffMs = perStep(sums.handOffMs)
    return { steps, tokens, ms: stepMs + handOffMs, begin, stages, wakeMs: stepMs - inPoolMs, handOffMs }
  }

  /** Calls of a stage become one row; rows are in order of first appearance. */
  #stages(kind: StepKind, entry: (index: number) => EntryTime): StageProfile[] {
    const { calls, shape } = this.#program
    const { steps, tokens } = this.#sums[kind]
    const byStage = Map.groupBy(calls.entries(), ([, call]) => call.stage)
    return [...byStage].map(([stage, group]) => {
      const times = group.map(([index]) => entry(index + 1))
      const ms = times.reduce((sum, time) => sum + time.ms, 0)
      const waitMs = times.reduce((sum, time) => sum + time.waitMs, 0)
      const bytes = group.map(([, call]) => (kind === 'decode' ? weightBytes(call, tokens === steps, shape.expertsUsed) : undefined))
      const time = { stage, calls: group.length, ms, waitMs }
      if (!bytes.every((each) => each !== undefined)) return time
      const read = bytes.reduce((sum, each) => sum + each, 0)
      return { ...time, weightBytes: read, gbPerSecond: read / ms / 1e6 }
    })
  }
}
