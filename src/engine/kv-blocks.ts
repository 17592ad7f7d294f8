/**
 * The KV cache's blocks and who has them. Pure bookkeeping: the bytes are in the arenas, and a block has the same number in every layer.
 *
 *     free   [7, 3, 9, ...]
 *     table  [4, 0, 12]        a sequence's blocks in order of position; position p is row p % B of block table[p / B]
 */
import { KV_BLOCK_TOKENS } from '../abi/kernels.ts'
import { TandemError } from '../errors.ts'

/** One sequence's blocks. Owned by the sequence, changed by `KvBlocks` alone. */
export interface BlockTable {
  /** Block ids in order of position. */
  readonly blocks: number[]
}

/** Hands out blocks and takes them back. */
export class KvBlocks {
  readonly total: number
  readonly #free: number[]

  constructor(total: number) {
    this.total = total
    // popped from the end: block 0 goes first, so that a small conversation touches few pages
    this.#free = Array.from({ length: total }, (_, index) => total - 1 - index)
  }

  /** Blocks that nobody has. */
  get free(): number {
    return this.#free.length
  }

  /** Makes room for `tokens` positions in all; takes nothing when it cannot have everything. Throws `ERR_KV_EXHAUSTED`. */
  grow(table: BlockTable, tokens: number): void {
    const missing = Math.ceil(tokens / KV_BLOCK_TOKENS) - table.blocks.length
    if (missing <= 0) return
    if (missing > this.#free.length) {
      throw new TandemError(
        'ERR_KV_EXHAUSTED',
        `${tokens} tokens need ${missing} more blocks of the KV cache, ${this.#free.length} of ${this.total} are free: ` +
          'close other sessions or raise kvTokens',
      )
    }
    for (let taken = 0; taken < missing; taken++) table.blocks.push(this.#free.pop()!)
  }

  /** Gives back every block behind the first `tokens` positions. */
  truncate(table: BlockTable, tokens: number): void {
    const keep = Math.ceil(tokens / KV_BLOCK_TOKENS)
    while (table.blocks.length > keep) this.#free.push(table.blocks.pop()!)
  }
}

/** Row of the cache where a position is stored: `block * KV_BLOCK_TOKENS + offset`. */
export function cacheRow(table: BlockTable, position: number): number {
  return table.blocks[Math.floor(position / KV_BLOCK_TOKENS)]! * KV_BLOCK_TOKENS + (position % KV_BLOCK_TOKENS)
}
