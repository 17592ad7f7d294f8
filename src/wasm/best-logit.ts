/** The best logit of an output, of those that the workers have kept of their parts (`stages/head.ts`). */
import type { BestLogits } from '../abi/step.ts'
import type { ArenaLayout } from '../placement/types.ts'

/** What is not finite comes first, then the larger one, of equals the lower id. */
function isBetter(id: number, logit: number, bestId: number, best: number): boolean {
  if (bestId < 0) return true
  const [isFinite, wasFinite] = [Number.isFinite(logit), Number.isFinite(best)]
  if (isFinite !== wasFinite) return wasFinite
  return logit > best || (!(logit < best) && id < bestId)
}

/** The best logit of output `row` of a completed step that asked for the best. `memory`: the head's arena. */
export function bestLogit(memory: SharedArrayBuffer, { best, bestBytes }: ArenaLayout, workers: number, row: number): BestLogits {
  const ids = new Int32Array([-1])
  const logits = new Float32Array(1)
  for (let worker = 0; worker < workers; worker++) {
    const offset = best + worker * bestBytes
    const id = new Int32Array(memory, offset + row * 4, 1)[0]!
    const logit = new Float32Array(memory, offset + bestBytes / 2 + row * 4, 1)[0]!
    // a worker may have got none of the rows
    if (id < 0 || !isBetter(id, logit, ids[0]!, logits[0]!)) continue
    ids[0] = id
    logits[0] = logit
  }
  return { ids, logits }
}
