/** combine: x += routed + shared. */
import type { CombineCall } from '../../pipeline/program.ts'
import type { WorkerContext } from '../context.ts'
import { check } from '../kernels.ts'

/** Runs the stage on this worker's share. */
export function combine(context: WorkerContext, call: CombineCall): void {
  const { arena: at, shape } = context.program
  const { begin, end } = context.share(context.tokens * shape.hidden, 16)
  if (begin >= end) return
  const skip = begin * 4
  const shared = call.hasShared ? at.shared + skip : 0
  check(context.arena(call.arena).kernels.combine(at.x + skip, at.routed + skip, shared, end - begin), 'combine')
}
