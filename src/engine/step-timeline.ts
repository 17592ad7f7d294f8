/** The main thread's row of a trace: stands between the step loop and the executor and notes when steps are published and when their end is heard of. */
import type { BestLogits } from '../abi/step.ts'
import type { StepSlot } from '../ring/step-port.ts'
import { nowNs } from '../trace/clock.ts'
import { Timeline } from '../trace/timeline.ts'
import type { TraceRow } from '../trace/trace-event.ts'
import type { StepExecutor } from './step-loop.ts'

/** Entries of the row: a step, and the time from a step's end to the next one's publication with none in flight. */
const ENTRIES = ['step', 'between steps'] as const

/** An executor whose steps are noted. */
export class StepTimeline implements StepExecutor {
  readonly #executor: StepExecutor
  readonly #timeline: Timeline
  #inFlight = 0
  /** When the oldest step in flight was published or came to be the oldest; with none in flight, when the last one ended. */
  #since: number | undefined

  constructor(executor: StepExecutor, events: number) {
    this.#executor = executor
    this.#timeline = new Timeline(events)
  }

  /** The row, as far as it has come. */
  get row(): TraceRow {
    return { name: 'steps', group: 'main', label: (entry) => ({ name: ENTRIES[entry]! }), timeline: this.#timeline }
  }

  tryClaim(): StepSlot | undefined {
    return this.#executor.tryClaim()
  }

  publish(slot: StepSlot): void {
    if (this.#inFlight++ === 0) this.#end('between steps')
    this.#executor.publish(slot)
  }

  cancel(slot: StepSlot): void {
    this.#executor.cancel(slot)
  }

  async whenCompleted(slot: StepSlot): Promise<boolean> {
    const isDone = await this.#executor.whenCompleted(slot)
    this.#end('step')
    this.#inFlight--
    return isDone
  }

  logits(row: number): Float32Array<SharedArrayBuffer> {
    return this.#executor.logits(row)
  }

  best(row: number, count: number): BestLogits {
    return this.#executor.best!(row, count)
  }

  #end(entry: (typeof ENTRIES)[number]): void {
    const now = nowNs()
    if (this.#since !== undefined) this.#timeline.add(this.#since, now, ENTRIES.indexOf(entry), 0)
    this.#since = now
  }
}
