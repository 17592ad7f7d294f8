/** What a user stage's function returns, as the program reads it. */
import type { TandemError } from '../errors.ts'

/** What one call of a user stage's function returned. */
export interface UserStageResult<Value = unknown> {
  /** `UserStageContext.step` and `.layer` of the call. */
  readonly step: number
  readonly layer: number | undefined
  readonly value: Value
}

/**
 * What the calls of a user stage returned, in order. Every result is told once: by `collect`, or to a loop over this object, which goes on until
 * the engine is closed. What nobody takes stays in memory.
 */
export interface UserStageResults<Value = unknown> extends AsyncIterable<UserStageResult<Value>> {
  /** Calls that were left out because the function was too far behind, or has failed. */
  readonly dropped: number
  /**
   * The results that nobody has taken yet, of every step that has ended before. Throws `ERR_USER_STAGE` once an observer has failed (the engine
   * works on without it), `ERR_WORKER_DIED`, `ERR_CLOSED`.
   */
  collect(): Promise<UserStageResult<Value>[]>
}

/** The main thread's end of one user stage. */
export class UserStageChannel implements UserStageResults {
  readonly #settle: () => Promise<void>
  readonly #countDropped: () => number
  #results: UserStageResult[] = []
  #failure: TandemError | undefined
  #changed = Promise.withResolvers<void>()

  /** `settle`: resolves when all that was to be observed is here or the stage has failed. */
  constructor(settle: () => Promise<void>, countDropped: () => number) {
    this.#settle = settle
    this.#countDropped = countDropped
  }

  get dropped(): number {
    return this.#countDropped()
  }

  get failure(): TandemError | undefined {
    return this.#failure
  }

  push(result: UserStageResult): void {
    this.#results.push(result)
    this.#tell()
  }

  /** The first failure stands. */
  fail(error: TandemError): void {
    this.#failure ??= error
    this.#tell()
  }

  async collect(): Promise<UserStageResult[]> {
    await this.#settle()
    if (this.#failure) throw this.#failure
    return this.#take()
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<UserStageResult, void, undefined> {
    for (;;) {
      const changed = this.#changed.promise
      for (let next = this.#results.shift(); next; next = this.#results.shift()) yield next
      if (this.#failure?.code === 'ERR_CLOSED') return
      if (this.#failure) throw this.#failure
      await changed
    }
  }

  #take(): UserStageResult[] {
    const results = this.#results
    this.#results = []
    return results
  }

  #tell(): void {
    this.#changed.resolve()
    this.#changed = Promise.withResolvers()
  }
}
