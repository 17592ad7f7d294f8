/**
 * One sequence's part of the KV cache: which of its tokens are stored, and how the others get there.
 *
 *     tokens   [-------- stored --------|-- to be computed --]        stored < tokens after giving way, or in the middle of an append
 *
 *     append:  adopt blocks that others have --> wait while somebody computes the next --> take blocks --> step --> done
 *                 ^                                                                          |             |
 *                 +------------------------------- gave way to an older sequence ------------+-------------+
 */
import { KV_BLOCK_TOKENS } from '../abi/kernels.ts'
import { type MessageChannel, messageChannel } from '../diagnostics/channels.ts'
import { debugLog } from '../diagnostics/debug.ts'
import { TandemError } from '../errors.ts'
import type { BlockTable, KvBlocks } from './kv-blocks.ts'
import type { KvHolder } from './kv-turns.ts'
import type { Outputs } from './scheduler.ts'
import { abortedBy, type BestWanted, type StepLoop } from './step-loop.ts'

/** Options of every call that evaluates tokens. */
export interface EvaluateOptions {
  readonly signal?: AbortSignal | undefined
  /** Prompt tokens evaluated so far, and in all. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined
  /**
   * Take whole blocks of the cache that other sequences with the same beginning have or had, and let others take this one's. Does not change
   * the results. Default false; true in `generate`.
   */
  readonly sharePrefix?: boolean | undefined
}

/** As `EvaluateOptions`, for one append. */
export interface AppendOptions extends EvaluateOptions {
  /** Whether the outputs' last hidden states are wanted too. Default false. */
  readonly wantsHidden?: boolean
}

/** What it needs of the engine. */
export interface CacheHost {
  readonly loop: StepLoop
  readonly blocks: KvBlocks
}

/** A sequence gives its part of the cache to an older one and will compute it again: a message of the channel `tandem:preemption`. */
export interface PreemptionMessage {
  /** Tokens that it had in the cache. */
  readonly tokens: number
  /** Blocks that it gives back. */
  readonly blocks: number
  /** How often that has happened to it, this time included. */
  readonly preemptions: number
}

const channel: MessageChannel<PreemptionMessage> = messageChannel('tandem:preemption')
const debug = debugLog('engine')

/** What an append ends with, inside, when its blocks were given to an older sequence. */
const GAVE_WAY: unique symbol = Symbol('gave way')

const closed = (): TandemError => new TandemError('ERR_CLOSED', 'the session was closed')

/** See the file's header. One append at a time; its owner sees to that. */
export class SequenceCache implements KvHolder {
  readonly table: BlockTable = { blocks: [] }
  /** The sequence, in the middle of an append too. */
  readonly tokens: number[] = []
  readonly #host: CacheHost
  readonly #closing = new AbortController()
  #stored = 0
  /** How many tokens may be in blocks of others. */
  #adoptable = 0
  #rank = 0
  #preemptions = 0
  /** In a step: blocks cannot be given back before it ends. */
  #isStepping = false
  /** Every token of the step gives logits: it is not to be done twice. */
  #isPinned = false
  #mustLeave = false

  constructor(host: CacheHost) {
    this.#host = host
    host.blocks.turns.join(this)
  }

  get rank(): number {
    return this.#rank
  }

  /** How often its blocks were given to an older sequence. */
  get preemptions(): number {
    return this.#preemptions
  }

  get #isClosing(): boolean {
    return this.#closing.signal.aborted
  }

  /** See `SequenceState.waitWhenFull`. */
  waitWhenFull(): void {
    if (this.#rank === 0) this.#rank = this.#host.blocks.turns.nextRank()
  }

  adopt(): void {
    if (this.#isFull) this.#stored = this.#host.blocks.adopt(this.table, this.tokens, this.#adoptable)
  }

  giveWay(): boolean {
    const preemptions = ++this.#preemptions
    if (channel.hasSubscribers) channel.publish({ tokens: this.#stored, blocks: this.table.blocks.length, preemptions })
    debug?.(`sequence of rank ${this.#rank} gives ${this.table.blocks.length} blocks (${this.#stored} tokens) to an older one`)
    if (this.#isStepping) {
      this.#mustLeave = true
      if (!this.#isPinned) this.#host.loop.withdraw(this.table, GAVE_WAY)
      return false
    }
    this.#stored = this.#host.blocks.truncate(this.table, 0)
    return true
  }

  /** Forgets everything behind the first `length` tokens. */
  truncate(length: number): void {
    this.tokens.length = Math.min(this.tokens.length, length)
    this.#giveBack(Math.min(this.#stored, length))
  }

  /** Ends an append that is under way, and all later ones. */
  close(): void {
    this.#closing.abort()
    if (this.#isStepping) this.#host.loop.withdraw(this.table, closed())
  }

  /** After `close` and the end of the append: gives everything back. */
  release(): void {
    this.truncate(0)
    this.#host.blocks.turns.leave(this)
  }

  /**
   * Evaluates tokens behind the others, and those of the others that are not stored any more. Logits are told by index in `tokens`, the last one's as
   * `best` says. When it fails half way, the tokens that were evaluated are kept.
   */
  async append(
    tokens: readonly number[],
    outputs: Outputs,
    onLogits: (index: number, logits: Float32Array, row: number) => void,
    options: AppendOptions,
    best?: BestWanted,
  ): Promise<void> {
    const before = this.tokens.length
    for (const token of tokens) this.tokens.push(token)
    try {
      // it may have to be begun again, whenever the blocks are wanted by an older sequence
      while (!(await this.#attempt(before, outputs, onLogits, options, best)));
    } catch (error) {
      this.tokens.length = Math.max(before, this.#stored)
      throw error
    } finally {
      this.#giveBack(this.#stored)
    }
  }

  /** Whether everything is stored now. */
  async #attempt(
    before: number,
    outputs: Outputs,
    onLogits: (index: number, logits: Float32Array, row: number) => void,
    { signal, onProgress, sharePrefix: shares = false, wantsHidden }: AppendOptions,
    best?: BestWanted,
  ): Promise<boolean> {
    if (signal?.aborted) throw abortedBy(signal)
    if (this.#isClosing) throw closed()
    const { blocks, loop } = this.#host
    const { table, tokens } = this
    // the last token is evaluated even when others have it: its logits are wanted
    this.#adoptable = shares && outputs === 'last' ? tokens.length - 1 : 0
    this.adopt()
    const computing = this.#isFull ? blocks.computing(table, tokens, this.#adoptable) : undefined
    if (computing) {
      await this.#wait(computing, signal)
      return false
    }
    const turn = blocks.turns.take(this, tokens.length)
    if (turn) {
      await this.#wait(turn, signal)
      // what was given may have been taken away again before we got to know
      if (this.#isClosing || table.blocks.length * KV_BLOCK_TOKENS < tokens.length) return false
    }
    const position = this.#stored
    const rest = tokens.slice(position)
    const announced = shares && rest.length > 1 ? blocks.announce(table, tokens, position) : []
    this.#isStepping = true
    this.#isPinned = outputs === 'all'
    try {
      await loop.evaluate({
        table,
        position,
        tokens: rest,
        outputs,
        best,
        signal,
        wantsHidden,
        onLogits: (index, logits, row) => {
          if (position + index >= before) onLogits(position + index - before, logits, row)
        },
        onProgress: (done) => {
          this.#stored = position + done
          if (shares) blocks.commit(table, tokens, this.#stored)
          onProgress?.(done, rest.length)
        },
      })
      return true
    } catch (error) {
      if (error !== GAVE_WAY) throw error
      return false
    } finally {
      blocks.retract(announced)
      this.#isStepping = false
      if (this.#mustLeave) this.#giveBack(0)
      this.#mustLeave = false
    }
  }

  /** Whether every position of the table is stored: only behind whole blocks can others' be taken. */
  get #isFull(): boolean {
    return this.#stored === this.table.blocks.length * KV_BLOCK_TOKENS
  }

  #giveBack(length: number): void {
    const { blocks } = this.#host
    this.#stored = blocks.truncate(this.table, length)
    blocks.turns.released(this)
  }

  /** Waits for a promise, the signal or `close`. */
  async #wait(promise: Promise<void>, signal: AbortSignal | undefined): Promise<void> {
    const { turns } = this.#host.blocks
    const ended = Promise.withResolvers<never>()
    const onAbort = (): void => ended.reject(abortedBy(signal!))
    const onClose = (): void => ended.reject(closed())
    signal?.addEventListener('abort', onAbort, { once: true })
    this.#closing.signal.addEventListener('abort', onClose, { once: true })
    try {
      await Promise.race([promise, ended.promise])
    } finally {
      signal?.removeEventListener('abort', onAbort)
      this.#closing.signal.removeEventListener('abort', onClose)
      turns.withdraw(this)
    }
  }
}
