/**
 * routedExperts: routed = sum over a token's experts of weight * down(silu(gate x) * up x), already weighted and summed.
 *
 * Tokens are grouped by expert, so that a weight is read once per step. A pair is (expert, one of its tokens); pairs of an expert are neighbours,
 * and so are their hidden rows. Workers take chunks of rows; who finishes an expert's last one quantises its hidden rows while the others go on, so that
 * only one barrier lies between the products. The experts of a token are added in ascending order, always.
 */
import { PANEL_ROWS } from '../../abi/formats.ts'
import { MATMUL, recordBytes } from '../../abi/kernels.ts'
import type { RoutedExpertsCall } from '../../pipeline/program.ts'
import type { WorkerArena, WorkerContext } from '../context.ts'
import { check } from '../kernels.ts'

/** Most panels of a chunk of `down`, of which every chunk begins each expert's matrix somewhere else: that takes time. */
const MOST_DOWN_PANELS = 64

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

  if (call.isFirst) {
    const mine = context.share(context.tokens * shape.hidden)
    arena.floats.fill(0, at.routed / 4 + mine.begin, at.routed / 4 + mine.end)
  }
  const input = context.recordsAt(gate.activation, at.normed)
  const records = context.ffnRecordsAt(down.activation)
  const active = activeExperts(arena, call, groups)
  // one range of rows over all experts, so that their work is shared out together
  const rowsEach = Math.ceil(gate.rows / PANEL_ROWS) * PANEL_ROWS
  context.forEachChunk(active.length * rowsEach, (begin, end) => {
    for (let row = begin; row < end;) {
      const index = Math.floor(row / rowsEach)
      const { expert, pair, count } = active[index]!
      const first = row % rowsEach
      const last = Math.min(first + end - row, rowsEach)
      const status = arena.kernels.gated(
        gate.format,
        up.format,
        gate.flags,
        at.ffnHidden + pair * gate.rows * 4,
        gate.rows,
        gate.offset + expert * gate.expertBytes,
        up.offset + expert * up.expertBytes,
        input,
        groups.pairToken + pair * 4,
        gate.columns,
        first,
        Math.min(last, gate.rows),
        count,
        context.scratch,
      )
      check(status, 'gated')
      row += last - first
      if (isLastPart(arena, at.expertRows / 4 + index, last - first, rowsEach)) {
        context.quantize(arena, down.activation, records, at.ffnHidden, down.columns, { begin: pair, end: pair + count })
      }
    }
  })
  context.sync()

  const stride = recordBytes(down.activation, down.columns)
  // rows are shared out and every chunk takes all experts in order, because they add to the same sums
  context.forEachChunk(
    down.rows,
    (begin, end) => {
      for (const { expert, pair, count } of active) {
        const status = arena.kernels.matmul(
          down.format,
          MATMUL.add | down.flags,
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
      }
    },
    MOST_DOWN_PANELS,
  )
}

/**
 * Counts the finished rows of an expert, `rows` more of `all`. True for whoever completes them: everybody's results are visible to it then. The word is
 * zero again after that, for the next time.
 */
function isLastPart({ words }: WorkerArena, word: number, rows: number, all: number): boolean {
  if (Atomics.add(words, word, rows) + rows < all) return false
  Atomics.store(words, word, 0)
  return true
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

/** An expert of the call that some token chose. */
interface ActiveExpert {
  /** Index among the call's experts. */
  readonly expert: number
  /** Its first pair, and how many it has. */
  readonly pair: number
  readonly count: number
}

/** The call's experts that have work, ascending. */
function activeExperts(arena: WorkerArena, call: RoutedExpertsCall, groups: Groups): ActiveExpert[] {
  const active: ActiveExpert[] = []
  for (let expert = call.expertBegin; expert < call.expertEnd; expert++) {
    const pair = arena.words[groups.offsets + expert]!
    const count = arena.words[groups.offsets + expert + 1]! - pair
    if (count > 0) active.push({ expert: expert - call.expertBegin, pair, count })
  }
  return active
}
