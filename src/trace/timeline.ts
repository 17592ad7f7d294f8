/**
 * What one thread or one GPU stream did when: events in shared memory, written by it alone and read by the main thread between steps.
 *
 *     f64   count, dropped, -, -   |   start ns, end ns, entry, ns of it waiting   |   ...
 *
 * Entries are those of `stage-times.ts`: 0 is a step's beginning, c + 1 is call c of the program. A full timeline drops what comes after.
 */

/** One event; times in ns of `nowNs`. */
export interface TimelineEvent {
  readonly startNs: number
  readonly endNs: number
  readonly entry: number
  readonly waitNs: number
}

const COUNT = 0
const DROPPED = 1
const FIELDS = 4

/** One party's view of a timeline. */
export class Timeline {
  readonly buffer: SharedArrayBuffer
  readonly #fields: Float64Array
  readonly #capacity: number

  /** An empty timeline of so many events, or another party's by its buffer. Untouched pages of it cost nothing. */
  constructor(source: number | SharedArrayBuffer) {
    this.buffer = typeof source === 'number' ? new SharedArrayBuffer((source + 1) * FIELDS * 8) : source
    this.#fields = new Float64Array(this.buffer)
    this.#capacity = this.#fields.length / FIELDS - 1
  }

  /** The writer: appends an event, or counts it as dropped. */
  add(startNs: number, endNs: number, entry: number, waitNs: number): void {
    const count = this.#fields[COUNT]!
    if (count >= this.#capacity) {
      this.#fields[DROPPED]!++
      return
    }
    const at = (count + 1) * FIELDS
    this.#fields[at] = startNs
    this.#fields[at + 1] = endNs
    this.#fields[at + 2] = entry
    this.#fields[at + 3] = waitNs
    this.#fields[COUNT] = count + 1
  }

  /** Events that did not fit. */
  get dropped(): number {
    return this.#fields[DROPPED]!
  }

  /** The events in the order of their ends. */
  *events(): Generator<TimelineEvent> {
    const count = this.#fields[COUNT]!
    for (let event = 1; event <= count; event++) {
      const [startNs, endNs, entry, waitNs] = this.#fields.subarray(event * FIELDS, (event + 1) * FIELDS)
      yield { startNs: startNs!, endNs: endNs!, entry: entry!, waitNs: waitNs! }
    }
  }

  /** Forgets everything; only while nobody writes. */
  clear(): void {
    this.#fields.fill(0, 0, FIELDS)
  }
}
