/** The norm before a layer's attention or feed-forward part, and its records in every format that the following products read. */
import type { Activation } from '../../abi/formats.ts'
import type { WorkerArena, WorkerContext } from '../context.ts'
import { check } from '../kernels.ts'

/** normed = norm x of this worker's tokens, quantised to `activations`. */
export function normAndQuantize(context: WorkerContext, arena: WorkerArena, norm: number, activations: readonly Activation[]): void {
  const { shape, arena: at } = context.program
  const share = context.share(context.tokens)
  if (share.begin >= share.end) return
  const row = share.begin * shape.hidden * 4
  const count = share.end - share.begin
  check(arena.kernels.rms_norm(at.normed + row, at.x + row, norm, shape.hidden, count, shape.epsilon), 'rms_norm')
  for (const activation of activations) {
    context.quantize(arena, activation, context.recordsAt(activation, at.normed), at.normed, shape.hidden, share)
  }
}
