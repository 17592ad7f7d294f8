/** The repetition penalty of CTRL (https://arxiv.org/abs/1909.05858), as llama.cpp and transformers apply it. */
import { TandemError } from '../errors.ts'

/**
 * A function that returns the logits with the tokens among the last `window` of `history` made less likely: a positive logit is
 * divided by `penalty`, any other multiplied, once per token however often it occurs. The result is the input itself when nothing
 * changes, else a buffer that the next call overwrites. Throws `ERR_TOKEN_RANGE` for a history token outside the vocabulary.
 */
export function createRepetitionPenalty(
  penalty: number,
  window: number,
): (logits: Float32Array, history: readonly number[]) => Float32Array {
  let changed = new Float32Array(0)
  return (logits, history) => {
    const start = Math.max(0, history.length - window)
    if (penalty === 1 || start === history.length) return logits
    if (changed.length !== logits.length) changed = new Float32Array(logits.length)
    changed.set(logits)
    for (let i = start; i < history.length; i++) {
      const id = history[i] as number
      const logit = logits[id]
      if (logit === undefined) throw new TandemError('ERR_TOKEN_RANGE', `history has the token ${id}, there are ${logits.length} logits`)
      // From the unchanged logit, so a second occurrence changes nothing more.
      changed[id] = logit > 0 ? logit / penalty : logit * penalty
    }
    return changed
  }
}
