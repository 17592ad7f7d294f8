/**
 * routedExperts: routed = sum over a token's experts of weight * down(silu(gate x) * up x), already weighted and summed.
 *
 * Tokens are grouped by expert, so that a weight is read once per step. A pair is (expert, one of its tokens); pairs of an expert are neighbours,
 * and so are their hidden rows. Every worker takes some rows of every expert; the experts of a token are added in ascending order, always.
 */
import { MATMUL, recordBytes } from '../../abi/kernels.ts'
import type { RoutedExpertsCall } from '../../pipeline/program.ts'
import type { WorkerArena, WorkerContext } from '../context.ts'
import { check } from '../kernels.ts'

/** Offsets of a worker's private grouping. */
interface Groups {
  /** Index into the arena's words of i32[experts + 1]. */
  readonly offsets: number
  /** Byte offsets of i32[pairs] and f32[pairs]. */
  readonly pairToken: number
  readonly pairWeight: number
}

/** Runs the stage on this worker's share. */
export function routedExperts(context: WorkerContext, call: RoutedExpertsCall): void {
  const { arena: at, shape } = context.program
  const arena = context.arena(call.arena)
  const { gate, up, down } = call.weights
  const groups = groupPairs(context, arena)
  const first = arena.words[groups.offsets + call.expertBegin]!
  const last = arena.words[groups.offsets + call.expertEnd]!

  if (call.isFirst) {
    const { begin, end } = context.share(context.tokens * shape.hidden)
    arena.floats.fill(0, at.routed / 4 + begin, at.routed / 4 + end)
  }
  const input = context.recordsAt(gate.activation, at.normed)
  forEachExpert(arena, call, groups, (expert, pair, count) => {
    const { begin, end } = context.share(gate.rows, 8, expert)
    if (begin >= end) return
    const weights = expert * gate.expertBytes
    const hidden = at.ffnHidden + pair * gate.rows * 4
    const status = arena.kernels.gated(
      gate.format,
      up.format,
      hidden,
      gate.rows,
      gate.offset + weights,
      up.offset + expert * up.expertBytes,
      input,
      groups.pairToken + pair * 4,
      gate.columns,
      begin,
      end,
      count,
      context.scratch,
    )
    check(status, 'gated')
  })
  context.sync()

  const records = context.ffnRecordsAt(down.activation)
  if (down.activation !== 'f32') {
    const { begin, end } = context.share(last - first)
    context.quantize(arena, down.activation, records, at.ffnHidden, down.columns, { begin: first + begin, end: first + end })
    context.sync()
  }
  const stride = recordBytes(down.activation, down.columns)
  forEachExpert(arena, call, groups, (expert, pair, count) => {
    const { begin, end } = context.share(down.rows, 8)
    if (begin >= end) return
    const status = arena.kernels.matmul(
      down.format,
      MATMUL.add,
      at.routed,
      shape.hidden,
      down.offset + expert * down.expertBytes,
      records + pair * stride,
      0,
      groups.pairToken + pair * 4,
      groups.pairWeight + pair * 4,
      0,
      down.columns,
      begin,
      end,
      count,
      context.scratch,
    )
    check(status, 'matmul')
  })
}

/** Groups the step's pairs into this worker's own bytes: cheaper for each worker than a barrier would be. */
function groupPairs(context: WorkerContext, arena: WorkerArena): Groups {
  const { arena: at, shape } = context.program
  const { experts, expertsUsed } = shape
  const offsets = context.groupBytes
  const pairToken = offsets + Math.ceil(((experts + 1) * 4) / 64) * 64
  const pairWeight = pairToken + context.tokens * expertsUsed * 4
  const status = arena.kernels.group(offsets, pairToken, pairWeight, at.expertIds, at.expertWeights, experts, expertsUsed, context.tokens)
  check(status, 'group')
  return { offsets: offsets / 4, pairToken, pairWeight }
}

/** Calls `visit(expert - expertBegin, first pair, pairs)` for every expert of the call that some token chose. */
function forEachExpert(
  arena: WorkerArena,
  call: RoutedExpertsCall,
  groups: Groups,
  visit: (expert: number, pair: number, count: number) => void,
): void {
  for (let expert = call.expertBegin; expert < call.expertEnd; expert++) {
    const pair = arena.words[groups.offsets + expert]!
    const count = arena.words[groups.offsets + expert + 1]! - pair
    if (count > 0) visit(expert - call.expertBegin, pair, count)
  }
}
