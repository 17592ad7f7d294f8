/**
 * Poison: the state that tells every waiter to stop and fail. It is set once, never cleared; the reason travels as an error record beside it.
 */
import { POISON_WORD } from './wait.ts'

/** Words of a poison block. */
export const POISON_WORDS = 16

/** Poisons the control block and wakes everyone who sleeps on `waitWords`. True for the caller that did it first. */
export function poison(words: Int32Array<SharedArrayBuffer>, waitWords: readonly number[]): boolean {
  // The word changes before anyone is woken, so that a sleeper that wakes sees it; one about to sleep sees it a slice later (wait.ts).
  const first = Atomics.compareExchange(words, POISON_WORD, 0, 1) === 0
  for (const word of waitWords) Atomics.notify(words, word)
  return first
}

/** True once the control block is poisoned. */
export function isPoisoned(words: Int32Array<SharedArrayBuffer>): boolean {
  return Atomics.load(words, POISON_WORD) !== 0
}
