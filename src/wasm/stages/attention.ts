/** attention: x += output(softmax(q k / sqrt(d)) v), with q, k, v of the normed x; keys and values go to the cache. */
import { RUN_WORDS } from '../../abi/step.ts'
import { MATMUL } from '../../abi/kernels.ts'
import { activationsOf } from '../../abi/formats.ts'
import type { AttentionCall } from '../../pipeline/program.ts'
import type { WorkerContext } from '../context.ts'
import { check } from '../kernels.ts'
import { normAndQuantize } from './norm.ts'

/** Query tokens that one work item takes through the keys together. */
const TILE_TOKENS = 8

/** Runs the stage on this worker's share. */
export function attention(context: WorkerContext, call: AttentionCall): void {
  const { program, tokens } = context
  const { shape, arena: at } = program
  const arena = context.arena(call.arena)

  normAndQuantize(context, arena, call.norm, activationsOf([call.q, call.k, call.v]))
  context.sync()

  const input = (matrix: AttentionCall['q']): number => context.recordsAt(matrix.activation, at.normed)
  context.matmul(arena, call.q, MATMUL.store, at.q, input(call.q), call.qBias, tokens)
  context.matmul(arena, call.k, MATMUL.store, at.k, input(call.k), call.kBias, tokens)
  context.matmul(arena, call.v, MATMUL.store, at.v, input(call.v), call.vBias, tokens)
  context.sync()

  storeKeys(context, call)
  context.sync()

  attendRuns(context, call)
  context.sync()

  const width = shape.heads * shape.headDim
  const { activation } = call.output
  const records = context.recordsAt(activation, at.attended)
  if (activation !== 'f32') {
    context.quantize(arena, activation, records, at.attended, width, context.share(tokens))
    context.sync()
  }
  context.matmul(arena, call.output, MATMUL.add, at.x, records, 0, tokens)
}

/** Norm and rope of q and k, and the cache rows of this worker's tokens. */
function storeKeys(context: WorkerContext, call: AttentionCall): void {
  const { begin, end } = context.share(context.tokens)
  if (begin >= end) return
  const { shape, arena: at, step } = context.program
  const { heads, kvHeads, headDim, rotary, epsilon } = shape
  const status = context
    .arena(call.arena)
    .kernels.rope_store(
      at.q,
      heads * headDim,
      at.k,
      at.v,
      kvHeads * headDim,
      call.keyCache,
      call.valueCache,
      at.step + step.cacheRows,
      at.angles,
      call.qNorm,
      call.kNorm,
      heads,
      kvHeads,
      headDim,
      rotary,
      epsilon,
      begin,
      end,
    )
  check(status, 'rope_store')
}

/** Work items (tile of a run's tokens, key/value head), dealt out in turn so that the long, late tiles are spread. */
function attendRuns(context: WorkerContext, call: AttentionCall): void {
  const { shape, arena: at, step } = context.program
  const { heads, kvHeads, headDim } = shape
  const { kernels, words } = context.arena(call.arena)
  const width = heads * headDim
  const scale = 1 / Math.sqrt(headDim)
  let item = 0
  for (let run = 0; run < context.runs; run++) {
    const base = (at.step + step.runs) / 4 + run * RUN_WORDS
    const first = words[base]!
    const count = words[base + 1]!
    const table = at.step + step.blockTables + words[base + 2]! * step.blocksPerSequence * 4
    for (let offset = 0; offset < count; offset += TILE_TOKENS) {
      for (let head = 0; head < kvHeads; head++) {
        if (item++ % context.workers !== context.worker) continue
        const status = kernels.attend(
          at.attended,
          width,
          at.q,
          width,
          call.keyCache,
          call.valueCache,
          table,
          at.step + step.positions,
          first + offset,
          Math.min(TILE_TOKENS, count - offset),
          head,
          heads,
          kvHeads,
          headDim,
          scale,
          context.scratch,
        )
        check(status, 'attend')
      }
    }
  }
}
