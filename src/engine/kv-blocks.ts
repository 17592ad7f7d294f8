/**
 * The KV cache's blocks and who has them. Pure bookkeeping: the bytes are in the arenas, and a block has the same number in every layer.
 *
 *     free   [7, 3, 9, ...]
 *     kept   [5, 2, ...]       nobody has them, but their tokens are known: taken for other tokens when no block is free, longest unused first
 *     table  [4, 0, 12]        a sequence's blocks in order of position; position p is row p % B of block table[p / B]
 *
 * Sequences that begin with the same tokens have the same blocks in front. Only whole blocks are shared, and a block is written by the one
 * sequence that has it alone and never after others may have it: so nothing is ever copied.
 */
import { KV_BLOCK_TOKENS } from '../abi/kernels.ts'
import { debugLog, seldom } from '../diagnostics/debug.ts'
import { TandemError } from '../errors.ts'
import { KvTurns } from './kv-turns.ts'
import { PrefixIndex, type PrefixNode, ROOT } from './prefix-index.ts'

const evicted = seldom(debugLog('engine'), (count) => `${count} kept blocks of the cache evicted, those released longest ago`)

/** One sequence's blocks. Owned by the sequence, changed by `KvBlocks` alone. */
export interface BlockTable {
  /** Block ids in order of position. */
  readonly blocks: number[]
}

/** Hands out blocks and takes them back. */
export class KvBlocks {
  readonly total: number
  /** Who gets blocks next when there are too few. */
  readonly turns: KvTurns = new KvTurns(this)
  readonly #free: number[]
  /** In order of release. */
  readonly #kept = new Set<number>()
  /** Tables that each block is in. */
  readonly #holders: Int32Array
  /** What each block holds, once its tokens are computed and may be shared. Another block may be the one that `PrefixIndex` finds. */
  readonly #nodes: (PrefixNode | undefined)[]
  readonly #index = new PrefixIndex()

  constructor(total: number) {
    this.total = total
    // popped from the end: block 0 goes first, so that a small conversation touches few pages
    this.#free = Array.from({ length: total }, (_, index) => total - 1 - index)
    this.#holders = new Int32Array(total)
    this.#nodes = Array.from({ length: total })
  }

  /** Blocks that nobody has. */
  get free(): number {
    return this.#free.length + this.#kept.size
  }

  /** Makes room for `tokens` positions in all; takes nothing when it cannot have everything. Throws `ERR_KV_EXHAUSTED`. */
  grow(table: BlockTable, tokens: number): void {
    const missing = Math.ceil(tokens / KV_BLOCK_TOKENS) - table.blocks.length
    if (missing <= 0) return
    if (missing > this.free) {
      throw new TandemError(
        'ERR_KV_EXHAUSTED',
        `${tokens} tokens need ${missing} more blocks of the KV cache, ${this.free} of ${this.total} are free: ` +
          'close other sessions or raise kvTokens',
      )
    }
    for (let taken = 0; taken < missing; taken++) {
      const block = this.#free.pop() ?? this.#evict()
      this.#holders[block] = 1
      table.blocks.push(block)
    }
  }

  /**
   * Gives back every block behind the first `tokens` positions, and returns how many positions are left: fewer than `tokens` when the last of
   * them are in a block that others have too, which the sequence could not write behind them.
   */
  truncate(table: BlockTable, tokens: number): number {
    const keep = Math.ceil(tokens / KV_BLOCK_TOKENS)
    while (table.blocks.length > keep) this.#release(table.blocks.pop()!)
    if (tokens % KV_BLOCK_TOKENS === 0 || table.blocks.length < keep || this.#makeWritable(table.blocks.at(-1)!)) return tokens
    this.#release(table.blocks.pop()!)
    return (keep - 1) * KV_BLOCK_TOKENS
  }

  /** Takes the blocks that hold the next of the first `limit` tokens already; returns the positions that the table has then. It must be full. */
  adopt(table: BlockTable, tokens: readonly number[], limit: number): number {
    let parent = this.#parent(table)
    while (parent !== undefined && (table.blocks.length + 1) * KV_BLOCK_TOKENS <= limit) {
      const node = this.#index.find(parent, tokens, table.blocks.length * KV_BLOCK_TOKENS)
      if (node?.block === undefined) break
      if (this.#holders[node.block]!++ === 0) this.#kept.delete(node.block)
      table.blocks.push(node.block)
      parent = node.id
    }
    return table.blocks.length * KV_BLOCK_TOKENS
  }

  /** When somebody else is computing the block behind the table, which must be full: settled when it may be adopted, or never will. */
  computing(table: BlockTable, tokens: readonly number[], limit: number): Promise<void> | undefined {
    const parent = this.#parent(table)
    if (parent === undefined || (table.blocks.length + 1) * KV_BLOCK_TOKENS > limit) return undefined
    const node = this.#index.find(parent, tokens, table.blocks.length * KV_BLOCK_TOKENS)
    return node && node.block === undefined ? node.settled : undefined
  }

  /** Tells others that the tokens behind the first `first` are being computed. Returns what to `retract` when that is over. */
  announce(table: BlockTable, tokens: readonly number[], first: number): readonly PrefixNode[] {
    const announced: PrefixNode[] = []
    const begin = Math.floor(first / KV_BLOCK_TOKENS)
    let parent = begin === 0 ? ROOT : this.#nodes[table.blocks[begin - 1]!]?.id
    for (let block = begin; parent !== undefined && (block + 1) * KV_BLOCK_TOKENS <= tokens.length; block++) {
      const { node, isNew } = this.#index.findOrAdd(parent, tokens, block * KV_BLOCK_TOKENS)
      if (isNew) announced.push(node)
      parent = node.id
    }
    return announced
  }

  /** Takes back what was announced and not computed. */
  retract(announced: readonly PrefixNode[]): void {
    for (const node of announced) if (node.block === undefined) this.#index.remove(node)
  }

  /** Lets others share the whole blocks among the first `count` positions, which are computed. */
  commit(table: BlockTable, tokens: readonly number[], count: number): void {
    const end = Math.floor(count / KV_BLOCK_TOKENS)
    let begin = end
    while (begin > 0 && !this.#nodes[table.blocks[begin - 1]!]) begin--
    let parent = begin === 0 ? ROOT : this.#nodes[table.blocks[begin - 1]!]!.id
    for (const [index, block] of table.blocks.slice(begin, end).entries()) {
      const { node } = this.#index.findOrAdd(parent, tokens, (begin + index) * KV_BLOCK_TOKENS)
      node.block ??= block
      node.settle()
      this.#nodes[block] = node
      parent = node.id
    }
  }

  /** Node of a full table's last block; undefined when that was not committed. */
  #parent({ blocks }: BlockTable): number | undefined {
    return blocks.length === 0 ? ROOT : this.#nodes[blocks.at(-1)!]?.id
  }

  #release(block: number): void {
    if (--this.#holders[block]! > 0) return
    if (this.#nodes[block]?.block === block) {
      this.#kept.add(block)
      return
    }
    this.#forget(block)
    this.#free.push(block)
  }

  /** The kept block that was released longest ago. */
  #evict(): number {
    const block = this.#kept.values().next().value!
    this.#kept.delete(block)
    this.#forget(block)
    evicted?.()
    return block
  }

  #forget(block: number): void {
    const node = this.#nodes[block]
    if (node?.block === block) this.#index.remove(node)
    this.#nodes[block] = undefined
  }

  /** Whether a block that one table has may be written; then nobody finds it any more. */
  #makeWritable(block: number): boolean {
    if (this.#nodes[block] && this.#holders[block]! > 1) return false
    this.#forget(block)
    return true
  }
}

/** Row of the cache where a position is stored: `block * KV_BLOCK_TOKENS + offset`. */
export function cacheRow(table: BlockTable, position: number): number {
  return table.blocks[Math.floor(position / KV_BLOCK_TOKENS)]! * KV_BLOCK_TOKENS + (position % KV_BLOCK_TOKENS)
}
