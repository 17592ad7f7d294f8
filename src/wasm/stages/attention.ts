/**
 * attention: x += output(softmax(q k / sqrt(d)) v), with q, k, v of the normed x; keys and values go to the cache. In the last layer all else is worked
 * out for the tokens that give logits alone: of a prompt that is one token.
 */
import { RUN_WORDS } from '../../abi/step.ts'
import { ATTENTION_CHUNK_TOKENS, ATTENTION_TILE_QUERIES, attentionPartBytes, KV_BLOCK_TOKENS, MATMUL } from '../../abi/kernels.ts'
import { activationsOf } from '../../abi/formats.ts'
import type { AttentionCall } from '../../pipeline/program.ts'
import type { WorkerArena, WorkerContext } from '../context.ts'
import { check } from '../kernels.ts'
import { normAndQuantize } from './norm.ts'

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
  if (call.selects && context.outputs < tokens) {
    selectOutputs(context, arena, width)
    context.sync()
  }
  const { activation } = call.output
  const records = context.recordsAt(activation, at.attended)
  if (activation !== 'f32') {
    context.quantize(arena, activation, records, at.attended, width, context.share(context.tokens))
    context.sync()
  }
  context.matmul(arena, call.output, MATMUL.add, at.x, records, 0, context.tokens)
}

/** Moves the rows of the output tokens to the front of x and of the attention's output; from here on they are the step's tokens. */
function selectOutputs(context: WorkerContext, { words, floats }: WorkerArena, width: number): void {
  const { shape, arena: at, step } = context.program
  const outputs = (at.step + step.outputs) / 4
  // shared out by columns: a row may be moved to where another one was, so each worker moves its part of them in order
  for (const [rows, columns] of [
    [at.x / 4, shape.hidden],
    [at.attended / 4, width],
  ] as const) {
    const { begin, end } = context.share(columns, 16)
    for (let row = 0; row < context.outputs; row++) {
      const from = rows + words[outputs + row]! * columns
      floats.copyWithin(rows + row * columns + begin, from + begin, from + end)
    }
  }
  context.tokens = context.outputs
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

/** The tokens of one sequence in the step that attend: all, or in the last layer those that give logits. */
interface Run {
  /** Its first token in the step, and how many there are. */
  readonly first: number
  readonly count: number
  /** Offset of its block table. */
  readonly table: number
  /** Where the parts of its only token go, and how many chunks they are; 0 when its tokens are not shared out by chunks. */
  readonly parts: number
  readonly chunks: number
}

/** The step's runs. A single token with a long context is split into chunks of keys as long as there is room for what they leave. */
function readRuns(context: WorkerContext, words: Int32Array, selects: boolean): Run[] {
  const { shape, arena: at, step } = context.program
  const partBytes = attentionPartBytes(shape.heads, shape.headDim)
  const outputs = words.subarray((at.step + step.outputs) / 4, (at.step + step.outputs) / 4 + context.outputs)
  let used = 0
  let output = 0
  return Array.from({ length: context.runs }, (_, run) => {
    const base = (at.step + step.runs) / 4 + run * RUN_WORDS
    const [begin, tokens, row] = [words[base]!, words[base + 1]!, words[base + 2]!]
    // those of a run are its last ones
    const firstOutput = output
    while (output < outputs.length && outputs[output]! < begin + tokens) output++
    const count = selects ? output - firstOutput : tokens
    const first = begin + tokens - count
    const chunks = Math.floor(words[(at.step + step.positions) / 4 + first]! / ATTENTION_CHUNK_TOKENS) + 1
    const isSplit = context.workers > 1 && count === 1 && chunks > 1 && used + chunks <= at.attentionChunks
    const parts = at.attentionParts + used * partBytes
    if (isSplit) used += chunks
    return { first, count, table: at.step + step.blockTables + row * step.blocksPerSequence * 4, parts, chunks: isSplit ? chunks : 0 }
  })
}

/** Work for `attend` (tokens [first, first + count)) or for `attend_part` (chunks of the run's only token). */
interface Item {
  readonly run: Run
  readonly head: number
  readonly first: number
  readonly count: number
  readonly chunks: readonly [begin: number, end: number]
  /** About proportional to the time it takes. */
  readonly cost: number
}

/** Reading a block of keys and values takes as long as this many queries take with it. */
const READING_QUERIES = 6

/** The work of a run for one key/value head, in the order of the keys. */
function itemsOf(run: Run, head: number, group: number, positions: Int32Array): Item[] {
  const costOf = (keys: number, queries: number): number => Math.ceil(keys / KV_BLOCK_TOKENS) * (queries + READING_QUERIES)
  const keys = (token: number): number => positions[token]! + 1
  if (run.chunks > 0) {
    const left = (chunk: number): number => Math.min(ATTENTION_CHUNK_TOKENS, keys(run.first) - chunk * ATTENTION_CHUNK_TOKENS)
    return Array.from({ length: run.chunks }, (_, chunk) => ({
      run,
      head,
      first: run.first,
      count: 1,
      chunks: [chunk, chunk + 1],
      cost: costOf(left(chunk), group),
    }))
  }
  const tile = Math.max(1, Math.floor(ATTENTION_TILE_QUERIES / group))
  return Array.from({ length: Math.ceil(run.count / tile) }, (_, index) => {
    const first = run.first + index * tile
    const count = Math.min(tile, run.first + run.count - first)
    return { run, head, first, count, chunks: [0, 0], cost: costOf(keys(first + count - 1), count * group) }
  })
}

/** This worker's part of the items: consecutive ones, which share keys, of about the same cost for every worker. */
function shareOf(items: readonly Item[], worker: number, workers: number): Item[] {
  const total = items.reduce((sum, item) => sum + item.cost, 0)
  let before = 0
  return items.filter(({ cost }) => {
    const middle = before + cost / 2
    before += cost
    return Math.floor((middle * workers) / total) === worker
  })
}

/** Chunks that follow each other in one item: the queries are rounded once for all of them. */
function joinChunks(items: readonly Item[]): Item[] {
  const joined: Item[] = []
  for (const item of items) {
    const last = joined.at(-1)
    const follows = last && last.run === item.run && last.head === item.head && last.chunks[1] === item.chunks[0] && item.run.chunks > 0
    if (follows) joined[joined.length - 1] = { ...last, chunks: [last.chunks[0], item.chunks[1]] }
    else joined.push(item)
  }
  return joined
}

/** Attention of all runs. */
function attendRuns(context: WorkerContext, call: AttentionCall): void {
  const { shape, arena: at, step } = context.program
  const { heads, kvHeads, headDim } = shape
  const { words } = context.arena(call.arena)
  const runs = readRuns(context, words, call.selects).filter(({ count }) => count > 0)
  const positions = words.subarray((at.step + step.positions) / 4)
  const items = runs.flatMap((run) => Array.from({ length: kvHeads }, (_, head) => itemsOf(run, head, heads / kvHeads, positions)).flat())
  const share = joinChunks(shareOf(items, context.worker, context.workers))
  for (const item of share) attendItem(context, call, item, positions[item.first]!)

  const split = runs.filter((run) => run.chunks > 0)
  if (split.length === 0) return
  context.sync()
  const { kernels } = context.arena(call.arena)
  for (const [turn, run] of split.entries()) {
    const { begin, end } = context.share(heads, 1, turn)
    const out = at.attended + run.first * heads * headDim * 4
    check(kernels.attend_merge(out, run.parts, run.chunks, heads, headDim, begin, end), 'attend_merge')
  }
}

function attendItem(context: WorkerContext, call: AttentionCall, { run, head, first, count, chunks }: Item, position: number): void {
  const { shape, arena: at, step } = context.program
  const { heads, kvHeads, headDim } = shape
  const { kernels } = context.arena(call.arena)
  const { keyCache, valueCache } = call
  const { scratch } = context
  const width = heads * headDim
  const scale = 1 / Math.sqrt(headDim)
  if (run.chunks > 0) {
    const q = at.q + first * width * 4
    check(
      kernels.attend_part(
        run.parts,
        q,
        keyCache,
        valueCache,
        run.table,
        position,
        ...chunks,
        head,
        heads,
        kvHeads,
        headDim,
        scale,
        scratch,
      ),
      'attend_part',
    )
    return
  }
  const status = kernels.attend(
    at.attended,
    width,
    at.q,
    width,
    keyCache,
    valueCache,
    run.table,
    at.step + step.positions,
    first,
    count,
    head,
    heads,
    kvHeads,
    headDim,
    scale,
    scratch,
  )
  check(status, 'attend')
}
