/**
 * Bounded waits on shared words. Every wait has a deadline and wakes when the memory it belongs to is poisoned, so nothing here can hang.
 *
 * Spinning first is worth it while a core is free (a sleep and wake cost 5 to 50 us, a hand-off under 1 us) and harmful when threads
 * outnumber cores, so callers choose the spin count; 0 means sleep at once.
 */
import { TandemError } from '../errors.ts'

/** How a wait behaves. */
export interface WaitOptions {
  /** Loads before sleeping. Default 0. */
  readonly spins?: number
  /** Gives up with `ERR_TIMEOUT` after this many ms; `Infinity` waits until woken, poisoned or stopped. */
  readonly deadlineMs: number
  /** What is waited for, for the error message. */
  readonly what: string
}

/** Index of the poison word in every control block: 0 while healthy. */
export const POISON_WORD = 0

/**
 * A sleeper looks at the poison word at least this often, ms. Poisoning notifies the words that are waited on, but it does not change
 * them: whoever is between its look at the poison word and its sleep misses the notification and sees the poison one slice later.
 */
const SLICE_MS = 200

const pause: () => void = (Atomics as { pause?: () => void }).pause ?? (() => undefined)

/** Throws `ERR_POISONED` when the control block has been poisoned. */
export function throwIfPoisoned(words: Int32Array<SharedArrayBuffer>): void {
  if (Atomics.load(words, POISON_WORD) !== 0) throw new TandemError('ERR_POISONED', 'the executor was stopped by a failure elsewhere')
}

function timeout(options: WaitOptions): TandemError {
  return new TandemError('ERR_TIMEOUT', `waited ${options.deadlineMs} ms for ${options.what}`)
}

/** Looks up to `spins` times; true once `words[index]` is no longer `value`. */
export function spinWhile(words: Int32Array<SharedArrayBuffer>, index: number, value: number, spins: number): boolean {
  for (let spin = spins; spin > 0; spin--) {
    if (Atomics.load(words, index) !== value) return true
    pause()
  }
  return false
}

/**
 * Spins, then sleeps while `words[index] === value`; returns the new value. For worker threads only: it would freeze the main thread's event loop.
 * Throws `ERR_TIMEOUT`, `ERR_POISONED`.
 */
export function waitWhile(words: Int32Array<SharedArrayBuffer>, index: number, value: number, options: WaitOptions): number {
  // `sleepWhile` looks once more before it sleeps
  spinWhile(words, index, value, options.spins ?? 0)
  return sleepWhile(words, index, value, options)
}

/** As `waitWhile`, without spinning first. */
export function sleepWhile(words: Int32Array<SharedArrayBuffer>, index: number, value: number, options: WaitOptions): number {
  const start = performance.now()
  for (;;) {
    // Atomics.load is sequentially consistent: whatever the other side stored before its store to this word is visible after this returns.
    const seen = Atomics.load(words, index)
    if (seen !== value) return seen
    throwIfPoisoned(words)
    const left = options.deadlineMs - (performance.now() - start)
    if (left <= 0) throw timeout(options)
    // Atomics.wait compares under the same lock that notify takes, so a store between the load above and this call is not lost.
    const result = Atomics.wait(words, index, value, Math.min(left, SLICE_MS))
    // whoever notifies before there is a change says that it is near
    if (result === 'ok') spinWhile(words, index, value, options.spins ?? 0)
  }
}

/** As `waitWhile`, without blocking the thread: for the main thread. */
export async function waitWhileAsync(
  words: Int32Array<SharedArrayBuffer>,
  index: number,
  value: number,
  options: WaitOptions,
): Promise<number> {
  const start = performance.now()
  for (;;) {
    const seen = Atomics.load(words, index)
    if (seen !== value) return seen
    throwIfPoisoned(words)
    const left = options.deadlineMs - (performance.now() - start)
    if (left <= 0) throw timeout(options)
    const result = Atomics.waitAsync(words, index, value, Math.min(left, SLICE_MS))
    if (result.async) await result.value
  }
}

/** Some time later. Does not keep the process alive: the threads do that while there is something to wait for. */
export const delay = (ms: number): Promise<void> => new Promise((resolve) => void setTimeout(resolve, ms).unref())
