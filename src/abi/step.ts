/**
 * A step record: what one pass over the model works on. The engine writes it into a ring slot; the pool copies it into every arena.
 *
 *     header       i32[16]: tokens, runs, outputs, cancel, outcome, hidden, best, ...
 *     tokenIds     i32[U]   \
 *     positions    i32[U]    } token t of the step
 *     cacheRows    i32[U]   /  row of the KV cache that token t is stored in: block * KV_BLOCK_TOKENS + offset
 *     outputs      i32[O]   tokens whose logits are wanted
 *     runs         i32[S, 4]: first token, tokens, block table (a row of blockTables), unused; one run per sequence
 *     blockTables  i32[S, blocksPerSequence]
 */

/**
 * Words of the header, by meaning. `cancel` is set by the engine at any time, `outcome` by the executor when it is done. `hidden` is 1 when the last
 * hidden states of the outputs are wanted beside their logits. `best`: how many of the best logits of every output are enough, for an executor that can
 * tell them; 0 when all are wanted.
 */
export const STEP_HEADER = { tokens: 0, runs: 1, outputs: 2, cancel: 3, outcome: 4, hidden: 5, best: 6 } as const

/** `outcome`: what became of a step. */
export const STEP_OUTCOME = { done: 0, cancelled: 1 } as const

/** Words of one run. */
export const RUN_WORDS = 4

/** Bytes of the header. */
export const STEP_HEADER_BYTES = 64

/** The best logits of an output: best first, of equals the lower id. What is not finite comes before all else, so the first tells of the whole row. */
export interface BestLogits {
  /** i32[count] */
  readonly ids: Int32Array
  /** f32[count]: the logits of these tokens. */
  readonly logits: Float32Array
}
