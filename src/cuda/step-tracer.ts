/** Records what the device and its worker did when: the device's clock is read behind every call (`tcu_mark`) and told in the host's time. */
import { nowNs } from '../trace/clock.ts'
import { Timeline } from '../trace/timeline.ts'
import type { CudaFunctions, Handle } from './library.ts'
import { type CudaTrace, WORKER_ENTRIES } from './protocol.ts'

/** The clocks of host and device drift apart by some microseconds a second. */
const CALIBRATE_NS = 100e6

/** Readings of both clocks; the one that took the shortest is the best. */
const READINGS = 5

/** See the file's header. Belongs to the worker. */
export class StepTracer {
  readonly #tcu: CudaFunctions
  readonly #engine: Handle
  /** u64[calls + 1]: the step's beginning, and behind every call. As halves, low ones first: a step has no time for a bigint per call. */
  readonly #marks: Uint32Array
  readonly #stream: Timeline
  readonly #worker: Timeline
  /** A moment on the device's clock, whose numbers are too large for a double, as halves, and on the host's. */
  #originLow = 0
  #originHigh = 0
  #offsetNs = 0
  #calibratedNs = -Infinity
  #beginNs = 0
  #queuedNs = 0

  constructor(options: { tcu: CudaFunctions; engine: Handle; marks: BigUint64Array; trace: CudaTrace }) {
    this.#tcu = options.tcu
    this.#engine = options.engine
    const { buffer, byteOffset, length } = options.marks
    this.#marks = new Uint32Array(buffer, byteOffset, length * 2)
    this.#stream = new Timeline(options.trace.stream)
    this.#worker = new Timeline(options.trace.worker)
  }

  /** A step was claimed; nothing is queued. */
  begin(): void {
    if (nowNs() - this.#calibratedNs > CALIBRATE_NS) this.#calibrate()
    this.#beginNs = nowNs()
  }

  #calibrate(): void {
    let shortest = Infinity
    for (let reading = 0; reading < READINGS; reading++) {
      const before = nowNs()
      const device = BigInt(this.#tcu.tcu_clock(this.#engine))
      const after = nowNs()
      if (after - before >= shortest) continue
      shortest = after - before
      this.#offsetNs = (before + after) / 2
      this.#originLow = Number(device & 0xffff_ffffn)
      this.#originHigh = Number(device >> 32n)
    }
    this.#calibratedNs = nowNs()
  }

  #hostNs(mark: number): number {
    const high = this.#marks[2 * mark + 1]! - this.#originHigh
    return high * 2 ** 32 + (this.#marks[2 * mark]! - this.#originLow) + this.#offsetNs
  }

  /** The step is queued. */
  queued(): void {
    this.#queuedNs = nowNs()
  }

  /** The device has finished the step, of which nothing was left out. */
  finished(): void {
    this.#worker.add(this.#beginNs, this.#queuedNs, WORKER_ENTRIES.indexOf('queue'), 0)
    this.#worker.add(this.#queuedNs, nowNs(), WORKER_ENTRIES.indexOf('watch'), 0)
    let start = this.#hostNs(0)
    for (let call = 1; call < this.#marks.length / 2; call++) {
      const end = this.#hostNs(call)
      this.#stream.add(start, end, call, 0)
      start = end
    }
  }
}
