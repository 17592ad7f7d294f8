/**
 * Which blocks of the KV cache hold which beginnings of sequences: a tree, one node per whole block of tokens, found by its parent and its
 * tokens, compared exactly.
 *
 *     root --[tokens 0..31]--> node 1 --[tokens 32..63]--> node 2
 *                                    \--[other tokens]---> node 3
 *
 * A node's number is never used again, so a path that has lost a node in its middle is never found by mistake.
 */
import { KV_BLOCK_TOKENS } from '../abi/kernels.ts'

/** One whole block of tokens behind a certain beginning. */
export interface PrefixNode {
  readonly id: number
  readonly key: string
  /** The block that holds it; undefined while somebody computes it. */
  block: number | undefined
  /** Settled when it has been computed, or will not be. */
  readonly settled: Promise<void>
  readonly settle: () => void
}

/** Parent of a sequence's first block. */
export const ROOT = 0

const keyOf = (parent: number, tokens: readonly number[], first: number): string =>
  `${parent}:${tokens.slice(first, first + KV_BLOCK_TOKENS).join()}`

/** See the file's header. */
export class PrefixIndex {
  readonly #nodes = new Map<string, PrefixNode>()
  #nextId = ROOT + 1

  /** The node of `tokens[first..first + KV_BLOCK_TOKENS)` behind `parent`. */
  find(parent: number, tokens: readonly number[], first: number): PrefixNode | undefined {
    return this.#nodes.get(keyOf(parent, tokens, first))
  }

  /** The same, made when there is none yet. */
  findOrAdd(parent: number, tokens: readonly number[], first: number): { node: PrefixNode; isNew: boolean } {
    const key = keyOf(parent, tokens, first)
    const found = this.#nodes.get(key)
    if (found) return { node: found, isNew: false }
    const { promise, resolve } = Promise.withResolvers<void>()
    const node = { id: this.#nextId++, key, block: undefined, settled: promise, settle: resolve }
    this.#nodes.set(key, node)
    return { node, isNew: true }
  }

  /** Nobody will find it any more; who waits for it looks again. */
  remove(node: PrefixNode): void {
    if (this.#nodes.get(node.key) === node) this.#nodes.delete(node.key)
    node.settle()
  }
}
