/**
 * A ring of slots from one producer to N consumers that all read every slot.
 *
 *            published = 7        sequence numbers count up for ever (int32, wrapping); slot = sequence % depth, which goes on
 *                 |               without a break at the wrap because depth is a power of two
 *     +-----+-----+-----+-----+
 *     |  4  |  5  |  6  |  7  |   depth = 4
 *     +-----+-----+-----+-----+
 *        ^           ^
 *     completed = 4  consumers at work on 5, 6 ...
 *
 * The producer may write slot of sequence s once s - depth is completed, then publishes s. Each consumer claims s, reads, and releases it; the
 * last release completes s. Consumers finish sequences in order, so `completed` is one counter and no slot needs a state of its own.
 * Trade-off: a slow consumer holds the slot back for all, which is what a pipeline of equal shares wants.
 */
import { TandemError } from '../errors.ts'
import { waitWhile, waitWhileAsync, type WaitOptions } from './wait.ts'

const PUBLISHED = 0
const COMPLETED = 16
const RELEASES = 32

/** Words of a ring with `depth` slots: two counters on their own cache lines, then one release count per slot, each on its own line. */
export const ringWords = (depth: number): number => RELEASES + depth * 16

/** Difference of two wrapping sequence numbers. */
const ahead = (a: number, b: number): number => (a - b) | 0

/** One party's view of the ring; the slots' contents live elsewhere and are found by `slotOf`. */
export class Ring {
  readonly depth: number
  readonly #words: Int32Array<SharedArrayBuffer>
  readonly #base: number
  readonly #consumers: number

  /** `base`: index of the first of `ringWords(depth)` words, all zero at the start; `depth`: 1, 2, 4, 8 ... */
  constructor(words: Int32Array<SharedArrayBuffer>, base: number, depth: number, consumers: number) {
    if (depth < 1 || consumers < 1)
      throw new TandemError('ERR_ARGUMENT', `a ring needs depth and consumers >= 1, not ${depth} and ${consumers}`)
    if ((depth & (depth - 1)) !== 0) throw new TandemError('ERR_ARGUMENT', `a ring's depth must be a power of two, not ${depth}`)
    this.#words = words
    this.#base = base
    this.depth = depth
    this.#consumers = consumers
  }

  /** Words that parties may sleep on, for whoever poisons. */
  get waitWords(): readonly number[] {
    return [this.#base + PUBLISHED, this.#base + COMPLETED]
  }

  /** Sequence number of the newest published slot; 0 before the first. */
  get published(): number {
    return Atomics.load(this.#words, this.#base + PUBLISHED)
  }

  /** Sequence number of the newest slot that every consumer has released. */
  get completed(): number {
    return Atomics.load(this.#words, this.#base + COMPLETED)
  }

  /** Slot index of a sequence number. */
  slotOf(sequence: number): number {
    return sequence & (this.depth - 1)
  }

  /** Producer: the next sequence number if its slot is free now, else undefined. Writing the slot before `publish` is then safe. */
  tryClaim(): number | undefined {
    const next = (this.published + 1) | 0
    return ahead(next, this.completed) > this.depth ? undefined : next
  }

  /** Producer: makes the claimed slot visible. Everything written before is seen by whoever sees the new sequence number. */
  publish(sequence: number): void {
    Atomics.store(this.#words, this.#base + PUBLISHED, sequence)
    Atomics.notify(this.#words, this.#base + PUBLISHED)
  }

  /** Producer, main thread: resolves when `sequence` is completed. Throws `ERR_TIMEOUT`, `ERR_POISONED`. */
  async whenCompleted(sequence: number, options: WaitOptions): Promise<void> {
    for (;;) {
      const done = this.completed
      if (ahead(done, sequence) >= 0) return
      await waitWhileAsync(this.#words, this.#base + COMPLETED, done, options)
    }
  }

  /** Consumer: blocks until `sequence` is published. Throws `ERR_TIMEOUT`, `ERR_POISONED`. */
  claim(sequence: number, options: WaitOptions): void {
    for (;;) {
      const newest = this.published
      if (ahead(newest, sequence) >= 0) return
      waitWhile(this.#words, this.#base + PUBLISHED, newest, options)
    }
  }

  /** As `claim`, without blocking the thread. */
  async whenPublished(sequence: number, options: WaitOptions): Promise<void> {
    for (;;) {
      const newest = this.published
      if (ahead(newest, sequence) >= 0) return
      await waitWhileAsync(this.#words, this.#base + PUBLISHED, newest, options)
    }
  }

  /** Consumer: done with `sequence`; each consumer calls it once per sequence, in order. True for the one that completed it. */
  release(sequence: number): boolean {
    const count = this.#base + RELEASES + this.slotOf(sequence) * 16
    if (Atomics.add(this.#words, count, 1) + 1 < this.#consumers) return false
    // The reset must come before COMPLETED: as soon as that changes the producer may reuse the slot.
    Atomics.store(this.#words, count, 0)
    Atomics.store(this.#words, this.#base + COMPLETED, sequence)
    Atomics.notify(this.#words, this.#base + COMPLETED)
    return true
  }
}
