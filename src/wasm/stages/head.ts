/** head: logits = head(norm x) of the tokens whose logits are wanted, and the best of each where that is enough. */
import { MATMUL } from '../../abi/kernels.ts'
import { STEP_HEADER } from '../../abi/step.ts'
import type { HeadCall } from '../../pipeline/program.ts'
import type { WorkerArena, WorkerContext } from '../context.ts'
import { check } from '../kernels.ts'

/** Runs the stage on this worker's share. */
export function head(context: WorkerContext, call: HeadCall): void {
  const { outputs } = context
  if (outputs === 0) return
  const { arena: at, shape, step } = context.program
  const { hidden, epsilon } = shape
  const arena = context.arena(call.arena)
  const { activation } = call.weights
  const records = context.recordsAt(activation, at.normed)
  const share = context.share(outputs)
  for (let row = share.begin; row < share.end; row++) {
    const token = call.isSelected ? row : arena.words[(at.step + step.outputs) / 4 + row]!
    const status = arena.kernels.rms_norm(at.normed + row * hidden * 4, at.x + token * hidden * 4, call.norm, hidden, 1, epsilon)
    check(status, 'rms_norm')
  }
  context.quantize(arena, activation, records, at.normed, hidden, share)
  context.sync()
  context.matmul(arena, call.weights, MATMUL.store, at.logits, records, 0, outputs, keepsBest(context, arena, call.weights.rows))
}

/** Keeps the best of this worker's logits, while they are in its cache, where the step asks for no more. */
function keepsBest(
  context: WorkerContext,
  { kernels, words }: WorkerArena,
  vocabulary: number,
): ((begin: number, end: number) => void) | undefined {
  if (!context.header?.[STEP_HEADER.best]) return undefined
  const { outputs } = context
  const { best, bestBytes, logits } = context.program.arena
  const ids = best + context.worker * bestBytes
  words.fill(-1, ids / 4, ids / 4 + outputs)
  return (begin, end) => check(kernels.keep_best(ids, ids + bestBytes / 2, logits, vocabulary, begin, end, outputs), 'keep_best')
}
