/**
 * Where workers leave how long they took, for the main thread to read: sums in shared memory, because a message per step would cost more than
 * what it tells. A worker writes its own rows alone, and before it releases the step, so what is read between steps is complete.
 *
 *     f64[kinds, workers, entries, 2]     entry 0: the step's beginning; entry c + 1: call c of the program; each ms in all, ms of it waiting
 *
 * A worker's rows begin on a cache line of their own.
 */

/** Steps of one token per sequence, and steps with more of some sequence. */
export const STEP_KINDS = ['decode', 'prefill'] as const

/** What a step is for. */
export type StepKind = (typeof STEP_KINDS)[number]

/** The kind of a step by its tokens and its runs, of which every sequence in it has one. */
export function stepKind(tokens: number, runs: number): StepKind {
  return tokens === runs ? 'decode' : 'prefill'
}

/** Time of one entry, ms: in all, and what of it was waiting for other workers. */
export interface EntryTime {
  readonly ms: number
  readonly waitMs: number
}

const LINE_DOUBLES = 8

/** One party's view of the sums. */
export class StageTimes {
  readonly buffer: SharedArrayBuffer
  readonly #sums: Float64Array
  readonly #workers: number
  /** Doubles of one worker's entries. */
  readonly #stride: number

  /** Sums for the calls of a program, all zero; or those of `buffer`, which another party has made for the same program and workers. */
  constructor(workers: number, calls: number, buffer?: SharedArrayBuffer) {
    this.#workers = workers
    this.#stride = Math.ceil(((calls + 1) * 2) / LINE_DOUBLES) * LINE_DOUBLES
    this.buffer = buffer ?? new SharedArrayBuffer(STEP_KINDS.length * workers * this.#stride * 8)
    this.#sums = new Float64Array(this.buffer)
  }

  /** Worker `worker`: adds to an entry. */
  add(kind: StepKind, worker: number, entry: number, ms: number, waitMs: number): void {
    const index = this.#index(kind, worker, entry)
    this.#sums[index] = this.#sums[index]! + ms
    this.#sums[index + 1] = this.#sums[index + 1]! + waitMs
  }

  /** An entry's time, the mean of the workers. Workers leave an entry together, so each has the whole of it, working or waiting. */
  mean(kind: StepKind, entry: number): EntryTime {
    let ms = 0
    let waitMs = 0
    for (let worker = 0; worker < this.#workers; worker++) {
      const index = this.#index(kind, worker, entry)
      ms += this.#sums[index]!
      waitMs += this.#sums[index + 1]!
    }
    return { ms: ms / this.#workers, waitMs: waitMs / this.#workers }
  }

  /** Forgets everything; only while no step is in flight. */
  clear(): void {
    this.#sums.fill(0)
  }

  #index(kind: StepKind, worker: number, entry: number): number {
    return (STEP_KINDS.indexOf(kind) * this.#workers + worker) * this.#stride + entry * 2
  }
}
