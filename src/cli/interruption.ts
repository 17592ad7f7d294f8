/** Ctrl-C, a request to end, or a reader that went away: one abort signal for the command, and the exit code that goes with it. */
import { constants } from 'node:os'

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

/** Why a command was cut short. `EPIPE`: nobody reads its output any more. */
type Reason = (typeof SIGNALS)[number] | 'EPIPE'

/** Listens from its construction to `release()`. */
export class Interruption {
  readonly #controller = new AbortController()
  readonly #listeners = SIGNALS.map((name) => ({ name, listener: (): void => this.#receive(name) }))
  #reason: Reason | undefined
  #divert: (() => void) | undefined

  constructor() {
    for (const { name, listener } of this.#listeners) process.on(name, listener)
  }

  /** Fires at the first interruption. */
  get signal(): AbortSignal {
    return this.#controller.signal
  }

  get reason(): Reason | undefined {
    return this.#reason
  }

  /** 128 + the signal's number; 0 for a reader that had enough; undefined when nothing happened. */
  get exitCode(): number | undefined {
    if (this.#reason === undefined) return undefined
    return this.#reason === 'EPIPE' ? 0 : 128 + constants.signals[this.#reason]
  }

  /** Ends the command. */
  interrupt(reason: Reason): void {
    this.#reason ??= reason
    this.#controller.abort()
  }

  /** The request to end was followed and nothing was cut short: the command has ended as it should. */
  settle(): void {
    this.#reason = undefined
  }

  /** While `work` runs, the first Ctrl-C calls `onInterrupt`, if there is one, instead of ending the command. */
  async divert<Result>(onInterrupt: (() => void) | undefined, work: () => Promise<Result>): Promise<Result> {
    this.#divert = onInterrupt
    try {
      return await work()
    } finally {
      this.#divert = undefined
    }
  }

  /** Lets the process end by itself. */
  release(): void {
    for (const { name, listener } of this.#listeners) process.removeListener(name, listener)
  }

  #receive(name: (typeof SIGNALS)[number]): void {
    const divert = this.#divert
    this.#divert = undefined
    if (divert && name === 'SIGINT') divert()
    // somebody who asks twice does not want to wait for a clean end
    else if (this.#reason !== undefined) process.exit(this.exitCode ?? 1)
    else this.interrupt(name)
  }
}
