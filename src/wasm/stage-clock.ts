/** Measures a worker's time by call of the program. Made only when a profile is wanted: without one no clock is ever read. */
import { STEP_HEADER } from '../abi/step.ts'
import { FanIn } from '../ring/fan-in.ts'
import type { WaitOptions } from '../ring/wait.ts'
import { type StageTimes, type StepKind, stepKind } from '../trace/stage-times.ts'

/** A barrier that adds up how long its party has waited. */
export class TimedFanIn extends FanIn {
  waitedMs = 0

  override arriveAndWait(options: WaitOptions, onLast?: () => void): void {
    const start = performance.now()
    super.arriveAndWait(options, onLast)
    this.waitedMs += performance.now() - start
  }
}

/** One worker's clock: `begin`, then `book` at the end of each entry. */
export class StageClock {
  readonly #times: StageTimes
  readonly #worker: number
  readonly #barrier: TimedFanIn
  #kind: StepKind = 'decode'
  #last = 0
  #lastWaitedMs = 0

  constructor(times: StageTimes, worker: number, barrier: TimedFanIn) {
    this.#times = times
    this.#worker = worker
    this.#barrier = barrier
  }

  /** A step begins. `header`: the step record's. */
  begin(header: Int32Array<SharedArrayBuffer>): void {
    this.#kind = stepKind(header[STEP_HEADER.tokens]!, header[STEP_HEADER.runs]!)
    this.#last = performance.now()
    this.#lastWaitedMs = this.#barrier.waitedMs
  }

  /** Everything since the last booking was this entry, see `StageTimes`. The barrier behind a stage belongs to it. */
  book(entry: number): void {
    const now = performance.now()
    const { waitedMs } = this.#barrier
    this.#times.add(this.#kind, this.#worker, entry, now - this.#last, waitedMs - this.#lastWaitedMs)
    this.#last = now
    this.#lastWaitedMs = waitedMs
  }
}
