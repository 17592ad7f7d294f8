/**
 * Whose turn it is when the KV cache is full. Pure bookkeeping.
 *
 *     rank 0   ordinary sequences: never give way, and fail when nobody else can
 *     rank n   sequences that wait instead, in order of arrival; a younger one gives its blocks back for an older one and waits again
 *
 * So the oldest of those that wait always goes on, ends some day, and leaves its place to the next: no deadlock, and nobody starves.
 */
import { KV_BLOCK_TOKENS } from '../abi/kernels.ts'

/** What blocks are taken from. */
export interface KvPool {
  readonly total: number
  readonly free: number
  grow(table: { readonly blocks: number[] }, tokens: number): void
}

/** A sequence. */
export interface KvHolder {
  readonly table: { readonly blocks: number[] }
  readonly rank: number
  /** Takes what others have computed for it already, so that it needs less. Called when it is its turn. */
  adopt(): void
  /** Gives all blocks back: now (true), or as soon as no step uses them, which it tells by `released`. It stays in the queue if it is there. */
  giveWay(): boolean
}

interface Waiting {
  readonly holder: KvHolder
  readonly tokens: number
  readonly resolve: () => void
  readonly reject: (error: unknown) => void
}

/** See the file's header. */
export class KvTurns {
  readonly #pool: KvPool
  readonly #holders = new Set<KvHolder>()
  /** In order of rank. */
  #waiting: Waiting[] = []
  /** Those that have been asked to give way and still have their blocks. */
  readonly #leaving = new Set<KvHolder>()
  #lastRank = 0

  constructor(pool: KvPool) {
    this.#pool = pool
  }

  /** A rank behind all others. */
  nextRank(): number {
    return ++this.#lastRank
  }

  join(holder: KvHolder): void {
    this.#holders.add(holder)
  }

  leave(holder: KvHolder): void {
    this.#holders.delete(holder)
  }

  /** Makes room for `tokens` positions: at once, or when the promise resolves. Both fail with `ERR_KV_EXHAUSTED` when nobody can give way. */
  take(holder: KvHolder, tokens: number): Promise<void> | undefined {
    if (missing(holder, tokens) <= 0) return undefined
    // what the whole cache cannot hold fails now, before anybody gives way for it
    if (tokens > this.#pool.total * KV_BLOCK_TOKENS) this.#pool.grow(holder.table, tokens)
    const ahead = this.#waiting.filter((other) => other.holder.rank <= holder.rank).length
    if (ahead === 0) holder.adopt()
    if (ahead === 0 && this.#fits(holder, tokens)) {
      this.#pool.grow(holder.table, tokens)
      return undefined
    }
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    this.#waiting.splice(ahead, 0, { holder, tokens, resolve, reject })
    this.advance()
    return promise
  }

  /** Takes a holder out of the queue, if it is there; its promise is never settled. */
  withdraw(holder: KvHolder): void {
    const index = this.#waiting.findIndex((each) => each.holder === holder)
    if (index < 0) return
    this.#waiting.splice(index, 1)
    this.advance()
  }

  /** A holder has given blocks back. */
  released(holder: KvHolder): void {
    if (holder.table.blocks.length === 0) this.#leaving.delete(holder)
    this.advance()
  }

  /** Serves those who wait, as far as there is room or somebody can give way. */
  advance(): void {
    for (let first = this.#waiting[0]; first; first = this.#waiting[0]) {
      const { holder, tokens, resolve, reject } = first
      holder.adopt()
      if (!this.#fits(holder, tokens)) {
        const victim = this.#youngestBehind(holder)
        if (victim) {
          if (victim.giveWay()) continue
          this.#leaving.add(victim)
        }
        if (this.#leaving.size > 0 || this.#others(holder).length > 0) return
      }
      this.#waiting.shift()
      try {
        this.#pool.grow(holder.table, tokens)
        resolve()
      } catch (error) {
        reject(error)
      }
    }
  }

  /**
   * One that begins, or begins again, leaves the others a block each: they would need it soon, and then it would have to give way again.
   */
  #fits(holder: KvHolder, tokens: number): boolean {
    const blocks = missing(holder, tokens)
    const reserve = blocks > 1 && holder.rank > 0 ? this.#others(holder).length : 0
    return blocks + reserve <= this.#pool.free
  }

  /** Others that wait their turn and have blocks, which they will give back. */
  #others(holder: KvHolder): KvHolder[] {
    return [...this.#holders].filter((other) => other !== holder && other.rank > 0 && other.table.blocks.length > 0)
  }

  #youngestBehind(holder: KvHolder): KvHolder | undefined {
    if (this.#leaving.size > 0) return undefined
    return this.#others(holder)
      .filter(({ rank }) => rank > holder.rank)
      .reduce<KvHolder | undefined>((youngest, other) => (youngest && youngest.rank > other.rank ? youngest : other), undefined)
  }
}

const missing = ({ table }: KvHolder, tokens: number): number => Math.ceil(tokens / KV_BLOCK_TOKENS) - table.blocks.length
