/** Gated feed-forward networks that every token goes through: the dense layers' and the shared expert. */
import { MATMUL } from '../../abi/kernels.ts'
import type { DenseFfnCall, FeedForwardCall, SharedExpertsCall } from '../../pipeline/program.ts'
import { activationsOf } from '../../abi/formats.ts'
import type { WorkerArena, WorkerContext } from '../context.ts'
import { check } from '../kernels.ts'
import { normAndQuantize } from './norm.ts'

/** denseFfn: x += down(silu(gate) * up) of the normed x. */
export function denseFfn(context: WorkerContext, call: DenseFfnCall): void {
  const arena = context.arena(call.arena)
  normAndQuantize(context, arena, call.norm, activationsOf([call.weights.gate, call.weights.up]))
  context.sync()
  feedForward(context, arena, call.weights, MATMUL.add, context.program.arena.x)
}

/** sharedExperts: shared = the shared expert of `normed`, whose records the router stage has made. */
export function sharedExperts(context: WorkerContext, call: SharedExpertsCall): void {
  feedForward(context, context.arena(call.arena), call.weights, MATMUL.store, context.program.arena.shared)
}

function feedForward(context: WorkerContext, arena: WorkerArena, { gate, up, down }: FeedForwardCall, flags: number, y: number): void {
  const { tokens, scratch, program } = context
  const { arena: at } = program
  const input = context.recordsAt(gate.activation, at.normed)
  context.forEachChunk(gate.rows, (begin, end) => {
    const status = arena.kernels.gated(
      gate.format,
      up.format,
      gate.flags,
      at.ffnHidden,
      gate.rows,
      gate.offset,
      up.offset,
      input,
      0,
      gate.columns,
      begin,
      end,
      tokens,
      scratch,
    )
    check(status, 'gated')
  })
  context.sync()
  const records = context.ffnRecordsAt(down.activation)
  if (down.activation !== 'f32') {
    context.quantize(arena, down.activation, records, at.ffnHidden, down.columns, context.share(tokens))
    context.sync()
  }
  context.matmul(arena, down, flags, y, records, 0, tokens)
}
