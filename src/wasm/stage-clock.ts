/** Measures a worker's time by call of the program. Made only when a profile or a trace is wanted: without one no clock is ever read. */
import { FanIn } from '../ring/fan-in.ts'
import type { WaitOptions } from '../ring/wait.ts'
import { nowNs } from '../trace/clock.ts'
import { type StageTimes, type StepKind, stepKind } from '../trace/stage-times.ts'
import type { Timeline } from '../trace/timeline.ts'

/** A barrier that adds up how long its party has waited. */
export class TimedFanIn extends FanIn {
  waitedNs = 0

  override arriveAndWait(options: WaitOptions, onLast?: () => void): void {
    const start = nowNs()
    super.arriveAndWait(options, onLast)
    this.waitedNs += nowNs() - start
  }
}

/** One worker's clock: `begin`, then `book` at the end of each entry. */
export class StageClock {
  readonly #times: StageTimes | undefined
  readonly #timeline: Timeline | undefined
  readonly #worker: number
  readonly #barrier: TimedFanIn
  #kind: StepKind = 'decode'
  #last = 0
  #lastWaited = 0

  /** `times`: for sums, `timeline`: for every event. */
  constructor(options: { times?: StageTimes | undefined; timeline?: Timeline | undefined; worker: number; barrier: TimedFanIn }) {
    this.#times = options.times
    this.#timeline = options.timeline
    this.#worker = options.worker
    this.#barrier = options.barrier
  }

  /** A step begins, with so many tokens of so many sequences. */
  begin(tokens: number, runs: number): void {
    this.#kind = stepKind(tokens, runs)
    this.#last = nowNs()
    this.#lastWaited = this.#barrier.waitedNs
  }

  /** Everything since the last booking was this entry, see `StageTimes`. The barrier behind a stage belongs to it. */
  book(entry: number): void {
    const now = nowNs()
    const { waitedNs } = this.#barrier
    const waited = waitedNs - this.#lastWaited
    this.#times?.add(this.#kind, this.#worker, entry, (now - this.#last) / 1e6, waited / 1e6)
    this.#timeline?.add(this.#last, now, entry, waited)
    this.#last = now
    this.#lastWaited = waitedNs
  }
}
