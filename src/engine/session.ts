/**
 * A session: one sequence of tokens with its part of the KV cache.
 *
 *     idle --sync / decode / evaluate--> busy --> idle        close() from either: the work is aborted, the blocks go back
 */
import type { BestLogits } from '../abi/step.ts'
import { TandemError } from '../errors.ts'
import { areFinite } from '../sampling/finite.ts'
import { type CacheHost, type EvaluateOptions, SequenceCache } from './sequence-cache.ts'

export type { EvaluateOptions } from './sequence-cache.ts'

/** Called with the logits of `tokens[index]`: f32[vocabulary]. What it returns is awaited. */
export type OnLogits = (index: number, logits: Float32Array) => unknown

/** Called with the model's last hidden state at `tokens[index]`, after its last norm: f32[hidden], valid during the call only. */
export type OnHidden = (index: number, hidden: Float32Array) => void

/** What a session needs of its engine. */
export interface SessionHost extends CacheHost {
  readonly contextTokens: number
  readonly vocabulary: number
  /** Positions whose logits one step can give. */
  readonly outputs: number
  /** Most best logits that the executor can tell of a position; 0 where it only has all of them. */
  readonly best: number
  /** The hidden state of an output of the step that has just ended, which asked for it. */
  readonly hidden: (row: number) => Float32Array
  /** Throws `ERR_CLOSED` once the engine is closed. */
  assertOpen(): void
  release(session: SequenceState): void
}

function assertFinite(logits: Float32Array): void {
  if (areFinite(logits)) return
  throw new TandemError('ERR_NOT_FINITE', 'the model computed logits that are NaN or infinite; the file may be damaged')
}

function checkCount(count: number): void {
  if ((Number.isInteger(count) && count >= 1) || count === Infinity) return
  throw new TandemError('ERR_ARGUMENT', `the best logits are a whole number from 1, or Infinity, not ${count}`)
}

/** Options of one of several appends: progress is told as of all. What is evaluated for every position shares no prefix. */
function told({ signal, onProgress }: EvaluateOptions, first: number, total: number): EvaluateOptions {
  return { signal, onProgress: (done) => onProgress?.(first + done, total) }
}

/** The tokens and cache of one sequence, and the calls that change them. `Session` adds text. */
export class SequenceState {
  readonly #host: SessionHost
  readonly #cache: SequenceCache
  /** f32[vocabulary] after the last token, or the best of them, once known. */
  #logits: Float32Array | BestLogits | undefined
  #isBusy = false
  #isClosed = false
  #closed: Promise<void> | undefined
  #idle: Promise<void> = Promise.resolve()

  constructor(host: SessionHost) {
    this.#host = host
    this.#cache = new SequenceCache(host)
  }

  /** The sequence. */
  get tokens(): readonly number[] {
    return this.#cache.tokens
  }

  /** Longest sequence, tokens. */
  get contextTokens(): number {
    return this.#host.contextTokens
  }

  /** How often the session's part of the cache was given to an older session: see `waitWhenFull`. */
  get preemptions(): number {
    return this.#cache.preemptions
  }

  /**
   * From now on the session waits when the cache is full, instead of failing with `ERR_KV_EXHAUSTED`, and when a session that has waited from
   * earlier on, or one that does not wait, needs its part of the cache, it gives it up and computes it again later. The results are the same. It
   * should be used or closed soon: others may be waiting for it.
   */
  waitWhenFull(): void {
    this.#cache.waitWhenFull()
  }

  /**
   * Makes the cache hold exactly `tokens`, keeping the longest common prefix, and returns f32[vocabulary]: the logits after the last
   * token, owned by the session and valid until its next call. Throws `ERR_CONTEXT_OVERFLOW`, `ERR_KV_EXHAUSTED`, `ERR_TOKEN_RANGE`,
   * `ERR_ABORTED`, `ERR_BUSY`, `ERR_CLOSED`.
   */
  async sync(tokens: readonly number[], options: EvaluateOptions = {}): Promise<Float32Array> {
    return (await this.syncBest(tokens, Infinity, options)) as Float32Array
  }

  /** Appends one token and returns the logits after it; ownership and errors as in `sync`. */
  async decode(token: number, options: EvaluateOptions = {}): Promise<Float32Array> {
    return (await this.decodeBest(token, Infinity, options)) as Float32Array
  }

  /**
   * As `sync` for a caller to whom the `count` best logits are enough: gives them, or more, where they are found without handing all over (by a GPU, or the
   * best one by the pool), and all logits where not. Throws `ERR_ARGUMENT` for a count that is no whole number from 1, but for Infinity.
   */
  async syncBest(tokens: readonly number[], count: number, options: EvaluateOptions = {}): Promise<Float32Array | BestLogits> {
    if (tokens.length === 0) throw new TandemError('ERR_ARGUMENT', 'sync needs at least one token')
    checkCount(count)
    let common = 0
    while (common < tokens.length && tokens[common] === this.#cache.tokens[common]) common++
    const isSame = common === tokens.length && common === this.#cache.tokens.length && this.#knows(count)
    // the last token is evaluated again when its logits are not at hand
    const keep = isSame ? common : Math.min(common, tokens.length - 1)
    return this.#exclusive(async () => {
      this.#check(0, tokens)
      // taken before the cache is cut: `tokens` may be the session's own list
      const rest = tokens.slice(keep)
      this.#truncate(keep)
      if (!isSame) await this.#append(rest, count, options)
      return this.#logits!
    })
  }

  /** As `decode` for a caller to whom the `count` best logits are enough: see `syncBest`. */
  async decodeBest(token: number, count: number, options: EvaluateOptions = {}): Promise<Float32Array | BestLogits> {
    checkCount(count)
    return this.#exclusive(async () => {
      this.#check(this.#cache.tokens.length, [token])
      await this.#append([token], count, options)
      return this.#logits!
    })
  }

  /**
   * Makes the cache hold exactly `tokens` and calls back with the logits of every one of them, in order. The view is valid until the callback
   * returns; when it returns a promise, no more than `outputs` further positions are evaluated before that is settled. Errors as in `sync`.
   */
  async evaluate(tokens: readonly number[], onLogits: OnLogits, options: EvaluateOptions = {}): Promise<void> {
    return this.#exclusive(async () => {
      this.#check(0, tokens)
      // a copy: `tokens` may be the session's own list
      const all = [...tokens]
      this.#truncate(0)
      await this.#appendAll(all, onLogits, options)
    })
  }

  /** As `evaluate`, behind the tokens that are there: appends `tokens`, whose logits are told. */
  async extend(tokens: readonly number[], onLogits: OnLogits, options: EvaluateOptions = {}): Promise<void> {
    return this.#exclusive(async () => {
      this.#check(this.#cache.tokens.length, tokens)
      this.#logits = undefined
      await this.#appendAll([...tokens], onLogits, options)
    })
  }

  /**
   * Makes the cache hold exactly `tokens` and calls back with the model's last hidden state at every one of them, in order, or at the last one.
   * Errors as in `sync`.
   */
  async hiddenStates(tokens: readonly number[], which: 'all' | 'last', onHidden: OnHidden, options: EvaluateOptions = {}): Promise<void> {
    const { hidden } = this.#host
    return this.#exclusive(async () => {
      this.#check(0, tokens)
      const all = [...tokens]
      this.#truncate(0)
      const piece = which === 'all' ? this.#host.outputs : all.length
      for (let first = 0; first < all.length; first += piece) {
        const visit = (index: number, _logits: Float32Array, row: number): void => {
          const state = hidden(row)
          assertFinite(state)
          onHidden(first + index, state)
        }
        await this.#cache.append(all.slice(first, first + piece), which, visit, { ...told(options, first, all.length), wantsHidden: true })
      }
    })
  }

  /** Forgets everything behind the first `length` tokens. Throws `ERR_ARGUMENT`, `ERR_BUSY`, `ERR_CLOSED`. */
  truncate(length: number): void {
    this.#assertIdle()
    if (!(Number.isInteger(length) && length >= 0)) {
      throw new TandemError('ERR_ARGUMENT', `a session is cut to a whole number of tokens from 0, not to ${length}`)
    }
    this.#truncate(length)
  }

  /** Aborts what is running and gives the blocks back. */
  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  async #close(): Promise<void> {
    this.#isClosed = true
    this.#cache.close()
    await this.#idle
    this.#cache.release()
    this.#host.release(this)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  readonly #keepLogits = (_index: number, logits: Float32Array): void => {
    const kept = this.#logits instanceof Float32Array ? this.#logits : new Float32Array(this.#host.vocabulary)
    // copied before it is looked at: other cores have just written it, and a copy waits for many of their cache lines at once
    kept.set(logits)
    this.#logits = undefined
    assertFinite(kept)
    this.#logits = kept
  }

  readonly #keepBest = ({ ids, logits }: BestLogits): void => {
    this.#logits = undefined
    assertFinite(logits)
    this.#logits = { ids: ids.slice(), logits: logits.slice() }
  }

  /** Whether the `count` best of the logits after the last token are at hand. */
  #knows(count: number): boolean {
    const known = this.#logits
    return known !== undefined && (known instanceof Float32Array || known.ids.length >= count)
  }

  #assertIdle(): void {
    this.#host.assertOpen()
    if (this.#isClosed) throw new TandemError('ERR_CLOSED', 'the session has been closed')
    if (this.#isBusy) throw new TandemError('ERR_BUSY', 'the session is still working on an earlier call: await it, or use another session')
  }

  async #exclusive<Result>(work: () => Promise<Result>): Promise<Result> {
    this.#assertIdle()
    this.#isBusy = true
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#idle = promise
    try {
      return await work()
    } catch (error) {
      // an abort that came from close() is told as such; what a caller's callback throws passes through as it is
      throw this.#isClosed ? new TandemError('ERR_CLOSED', 'the session was closed', { cause: error }) : error
    } finally {
      this.#isBusy = false
      resolve()
    }
  }

  /** Checks tokens that are to stand at `position` and following. */
  #check(position: number, tokens: readonly number[]): void {
    const { contextTokens, vocabulary } = this.#host
    const total = position + tokens.length
    if (total > contextTokens) {
      throw new TandemError('ERR_CONTEXT_OVERFLOW', `${total} tokens do not fit in the context of ${contextTokens} tokens`)
    }
    const wrong = tokens.findIndex((token) => !(Number.isInteger(token) && token >= 0 && token < vocabulary))
    if (wrong < 0) return
    const where = `token ${tokens[wrong]} at position ${position + wrong}`
    throw new TandemError('ERR_TOKEN_RANGE', `${where} is not in the vocabulary of ${vocabulary} tokens`)
  }

  #truncate(length: number): void {
    if (length >= this.#cache.tokens.length) return
    this.#cache.truncate(length)
    this.#logits = undefined
  }

  /** Appends tokens and tells the logits of all, as many at a time as a step can give. */
  async #appendAll(all: readonly number[], onLogits: OnLogits, options: EvaluateOptions): Promise<void> {
    for (let first = 0; first < all.length; first += this.#host.outputs) {
      const pending: unknown[] = []
      const visit = (index: number, logits: Float32Array): void => {
        assertFinite(logits)
        pending.push(onLogits(first + index, logits))
      }
      const piece = all.slice(first, first + this.#host.outputs)
      await this.#cache.append(piece, 'all', visit, told(options, first, all.length))
      await Promise.all(pending)
    }
  }

  async #append(tokens: readonly number[], count: number, options: EvaluateOptions): Promise<void> {
    const { best, vocabulary } = this.#host
    // the best of which nothing is left over are all logits, which have an order of their own
    const wanted = count <= best && count < vocabulary ? { count, onBest: this.#keepBest } : undefined
    try {
      await this.#cache.append(tokens, 'last', this.#keepLogits, options, wanted)
    } catch (error) {
      this.#logits = undefined
      throw error
    }
  }
}
