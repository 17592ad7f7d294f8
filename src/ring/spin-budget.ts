/** Halvings of the budget before a waiter gives up spinning. */
const LAST_HALVING = 5

/** A waiter that has given up tries a full spin once in this many waits: the cores may be free again. */
const PROBE_EVERY = 32

/**
 * How often a waiter looks before it sleeps, learned from how its last spins ended. A spin that ends in time saves a sleep and a wake; one that
 * does not has only kept a core from the thread that is waited for, so it halves the next.
 */
export class SpinBudget {
  #halvings = 0
  #waits = 0

  /** Looks for the next wait, at most `most`. */
  next(most: number): number {
    if (this.#halvings <= LAST_HALVING) return most >> this.#halvings
    return ++this.#waits % PROBE_EVERY === 0 ? most : 0
  }

  /** Learns how a spin that `next` allowed has ended. */
  learn(isInTime: boolean): void {
    if (!isInTime) this.#halvings = Math.min(this.#halvings + 1, LAST_HALVING + 1)
    else this.#halvings = this.#halvings > LAST_HALVING ? 0 : Math.max(0, this.#halvings - 1)
  }
}
