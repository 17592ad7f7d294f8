/** embed: x = the embedding rows of the step's tokens. */
import type { EmbedCall } from '../../pipeline/program.ts'
import type { WorkerContext } from '../context.ts'
import { check } from '../kernels.ts'

/** Runs the stage on this worker's share. */
export function embed(context: WorkerContext, { arena, weights }: EmbedCall): void {
  const { begin, end } = context.share(context.tokens)
  if (begin >= end) return
  const { arena: at, shape, step } = context.program
  const ids = at.step + step.tokenIds + begin * 4
  const { kernels } = context.arena(arena)
  const { format, offset, columns } = weights
  const status = kernels.dequantize_rows(format, at.x + begin * shape.hidden * 4, offset, ids, columns, end - begin, context.scratch)
  check(status, 'dequantize_rows')
}
