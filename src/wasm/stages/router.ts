/** router: normed = norm x with the records that the experts read, then the ids and weights of every token's experts. */
import { activationsOf } from '../../abi/formats.ts'
import { MATMUL } from '../../abi/kernels.ts'
import type { RouterCall } from '../../pipeline/program.ts'
import type { WorkerContext } from '../context.ts'
import { check } from '../kernels.ts'
import { normAndQuantize } from './norm.ts'

/** Runs the stage on this worker's share. */
export function router(context: WorkerContext, call: RouterCall): void {
  const { shape, arena: at } = context.program
  const arena = context.arena(call.arena)
  const inputs = activationsOf([call.gate, ...call.records.map((activation) => ({ activation }))])
  normAndQuantize(context, arena, call.norm, inputs)
  context.sync()

  const input = context.recordsAt(call.gate.activation, at.normed)
  context.matmul(arena, call.gate, MATMUL.store, at.routerLogits, input, 0, context.tokens)
  context.sync()

  const { begin, end } = context.share(context.tokens)
  if (begin >= end) return
  const { gating, normalizeWeights, weightsScale, experts, expertsUsed } = shape
  const status = arena.kernels.route(
    at.expertIds,
    at.expertWeights,
    at.routerLogits,
    call.selectionBias,
    gating,
    normalizeWeights ? 1 : 0,
    weightsScale,
    experts,
    expertsUsed,
    begin,
    end,
  )
  check(status, 'route')
}
