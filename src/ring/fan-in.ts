/**
 * Fan-in: N parties arrive, the last one to arrive opens the gate, and the gate is ready for the next round at once (sense by epoch).
 *
 *     COUNT   arrivals in this round, 0 .. parties - 1 while it is open
 *     ASLEEP  parties that sleep or are about to: without any nobody is notified, which would be a call out of compiled code at the worst moment
 *     EPOCH   rounds completed; waiting means waiting for it to change
 */
import { SpinBudget } from './spin-budget.ts'
import { sleepWhile, spinWhile, throwIfPoisoned, type WaitOptions } from './wait.ts'

/** Words that a fan-in needs: on two cache lines, because arrivals write one while waiters read the other. */
export const FAN_IN_WORDS = 32

const COUNT = 0
const ASLEEP = 1
const EPOCH = 16

/** A reusable barrier over shared words. Every party makes its own object over the same words. */
export class FanIn {
  readonly #words: Int32Array<SharedArrayBuffer>
  readonly #count: number
  readonly #asleep: number
  readonly #epoch: number
  readonly #parties: number
  readonly #budget = new SpinBudget()

  /** `base`: index of the first of `FAN_IN_WORDS` words, all zero at the start. */
  constructor(words: Int32Array<SharedArrayBuffer>, base: number, parties: number) {
    this.#words = words
    this.#count = base + COUNT
    this.#asleep = base + ASLEEP
    this.#epoch = base + EPOCH
    this.#parties = parties
  }

  /** Index of the word that sleepers wait on, for whoever poisons. */
  get epochWord(): number {
    return this.#epoch
  }

  /**
   * Arrives and waits for the others. The last to arrive runs `onLast` before anyone is let through, so what it writes is
   * the same for all. `options.spins` is the most that it spins, see `SpinBudget`. Throws `ERR_TIMEOUT`, `ERR_POISONED`.
   */
  arriveAndWait(options: WaitOptions, onLast?: () => void): void {
    // Looked at here too, because a party that never has to wait (the only one, or always the last) would never look otherwise.
    throwIfPoisoned(this.#words)
    // Read the epoch before arriving: after the last arrival it may change at any moment.
    const epoch = Atomics.load(this.#words, this.#epoch)
    if (Atomics.add(this.#words, this.#count, 1) + 1 === this.#parties) {
      onLast?.()
      // Reset before opening: the first party of the next round may arrive as soon as the epoch changes.
      Atomics.store(this.#words, this.#count, 0)
      Atomics.add(this.#words, this.#epoch, 1)
      // Both sides store before they load, in one order for all: a sleeper that is not counted yet here sees the new epoch.
      if (Atomics.load(this.#words, this.#asleep) > 0) Atomics.notify(this.#words, this.#epoch)
      return
    }
    const spins = this.#budget.next(options.spins ?? 0)
    if (spins > 0) {
      const isOpen = spinWhile(this.#words, this.#epoch, epoch, spins)
      this.#budget.learn(isOpen)
      if (isOpen) return
    }
    Atomics.add(this.#words, this.#asleep, 1)
    try {
      sleepWhile(this.#words, this.#epoch, epoch, options)
    } finally {
      Atomics.sub(this.#words, this.#asleep, 1)
    }
  }
}
