/**
 * How the CUDA worker waits while a step runs. The device cannot wake anybody, so the worker looks at the words that the device writes, and wakes
 * the pool's sleepers for it.
 *
 *     device at work   published = completed    spin: it is about to publish, or to finish
 *     pool at work     published > completed    sleep: the pool's last worker notifies `completed`
 */
import { CONTROL, HANDOFF } from '../abi/control.ts'
import { TandemError } from '../errors.ts'
import { throwIfPoisoned } from '../ring/wait.ts'

const PUBLISHED = CONTROL.handoff + HANDOFF.published
const COMPLETED = CONTROL.handoff + HANDOFF.completed
const FINISHED = CONTROL.handoff + HANDOFF.finished

/** Between two looks at the device's health, ms. */
const CHECK_MS = 1

/** A sleep while the device is at work, ms: as short as the system's timers are. */
const NAP_MS = 0.05

/** Looks between two looks at the clock. */
const LOOKS = 64

const pause: () => void = (Atomics as { pause?: () => void }).pause ?? (() => undefined)

/** What a watch is made for. */
export interface WatchOptions {
  /** The control block. */
  readonly words: Int32Array<SharedArrayBuffer>
  /** Looks before a wait for the device sleeps. */
  readonly spins: number
  /** Longest time without any change of the words, ms. */
  readonly deadlineMs: number
  /** Throws when the device has failed. */
  readonly checkDevice: () => void
}

/** Hand-offs and steps as far as they have come; counts wrap. */
export class Watch {
  readonly #options: WatchOptions
  #published = 0
  #completed = 0
  #finished = 0

  constructor(options: WatchOptions) {
    this.#options = options
  }

  /** Hand-offs that the pool has completed. */
  get completed(): number {
    return this.#completed
  }

  /** Steps that the device has finished. */
  get finished(): number {
    return this.#finished
  }

  /** The device will hand something over soon: the pool's sleepers wake, which takes many of them hundreds of microseconds, and spin (`ring/wait.ts`). */
  alertPool(): void {
    Atomics.notify(this.#options.words, PUBLISHED)
  }

  /** Looks once. True when something has changed. */
  look(): boolean {
    const { words } = this.#options
    const published = Atomics.load(words, PUBLISHED)
    const completed = Atomics.load(words, COMPLETED)
    const finished = Atomics.load(words, FINISHED)
    if (published === this.#published && completed === this.#completed && finished === this.#finished) return false
    // The word has changed already: a sleeper that wakes sees it, and one about to sleep does not.
    if (published !== this.#published) Atomics.notify(words, PUBLISHED)
    this.#published = published
    this.#completed = completed
    this.#finished = finished
    return true
  }

  /** Waits until `isDone`, which is asked after every look. Throws `ERR_POISONED`, `ERR_TIMEOUT`, `ERR_DEVICE`, `ERR_DEVICE_LOST`. */
  until(isDone: () => boolean): void {
    const { words, spins, checkDevice } = this.#options
    let lastChange = performance.now()
    let lastCheck = lastChange
    let hasChanged = false
    let spin = 0
    for (;;) {
      if (this.look()) {
        hasChanged = true
        spin = 0
      }
      if (isDone()) return
      throwIfPoisoned(words)
      const isPoolAtWork = this.#published !== this.#completed
      const maySpin = !isPoolAtWork && spin < spins
      if (maySpin) {
        pause()
        if (++spin % LOOKS !== 0) continue
      }
      const now = performance.now()
      if (hasChanged) lastChange = now
      hasChanged = false
      this.#throwIfLate(now - lastChange)
      if (now - lastCheck >= CHECK_MS) {
        lastCheck = now
        checkDevice()
      }
      if (isPoolAtWork) Atomics.wait(words, COMPLETED, this.#completed, CHECK_MS)
      else if (!maySpin) Atomics.wait(words, PUBLISHED, this.#published, NAP_MS)
    }
  }

  #throwIfLate(ms: number): void {
    const { deadlineMs } = this.#options
    if (ms <= deadlineMs) return
    const state = `${this.#published} hand-offs published, ${this.#completed} completed, ${this.#finished} steps finished`
    throw new TandemError('ERR_TIMEOUT', `a step has made no progress for ${deadlineMs} ms: ${state}`)
  }
}
