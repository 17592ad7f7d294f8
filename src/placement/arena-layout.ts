/** The prefix of every arena: what the kernels need besides weights and KV cache. */
import { type Activation, activationOf, type ActivationPrecision, activationsOf, FORMATS, PANEL_ROWS, rowBytes } from '../abi/formats.ts'
import { ATTENTION_CHUNK_TOKENS, attentionPartBytes, recordBytes, scratchBytes } from '../abi/kernels.ts'
import type { TensorInfo } from '../gguf/types.ts'
import type { FeedForward, Hyperparameters, Matrix, Model } from '../model/types.ts'
import { Layout } from '../ring/arena.ts'
import { recordOffsets } from './record-layout.ts'
import type { ArenaLayout, Limits, RecordOffsets, StepLayout } from './types.ts'

/** The kernel module's own static data; `serve` checks that it fits. */
export const MODULE_BYTES = 65536

const STACK_BYTES = 65536

/** Bytes that a worker reads from the file at a time while it loads. */
export const STAGING_BYTES = 1 << 20

/** Columns of the widest matrix. */
function widestColumns(hyper: Hyperparameters): number {
  return Math.max(hyper.hidden, hyper.heads * hyper.headDim, hyper.ffnDense, hyper.ffnShared, hyper.ffnExpert)
}

/** Bytes of the longest file row of some tensors: a panel of 8 such rows must fit in the staging bytes. */
function longestFileRow(tensors: Iterable<TensorInfo>): number {
  let longest = 0
  for (const tensor of tensors) longest = Math.max(longest, rowBytes(FORMATS[tensor.format], tensor.shape[0] ?? 0))
  return longest
}

/** Sizes of each worker's private bytes: stack, scratch of the kernels and of loading, grouping of (token, expert) pairs. */
function workerSizes(
  { experts, expertsUsed }: Hyperparameters,
  { ubatch }: Limits,
  kernelScratch: number,
  longestRow: number,
): Pick<ArenaLayout, 'workerBytes' | 'stackBytes' | 'scratchBytes'> {
  // grouping is private to each worker, see wasm/stages/routed-experts.ts
  const groupBytes = Math.ceil(((experts + 1) * 4) / 64) * 64 + ubatch * expertsUsed * 8
  const scratch = Math.ceil(Math.max(kernelScratch, STAGING_BYTES, longestRow * PANEL_ROWS) / 64) * 64
  return { workerBytes: Math.ceil((STACK_BYTES + scratch + groupBytes) / 64) * 64, stackBytes: STACK_BYTES, scratchBytes: scratch }
}

/** Reserves record buffers that can hold any one of `shapes` at a time: [rows, columns]. Super-blocks exist whole only. */
function reserveRecords(layout: Layout, precision: ActivationPrecision, shapes: readonly (readonly [number, number])[]): RecordOffsets {
  return recordOffsets(precision, (format, block) =>
    layout.reserve(Math.max(...shapes.map(([rows, columns]) => rows * recordBytes(format, Math.ceil(columns / block) * block)))),
  )
}

/** Offsets of the prefix where the pool has the whole model. */
export function arenaLayout(model: Model, limits: Limits, step: StepLayout): ArenaLayout {
  const { hyper } = model
  const tokens = limits.ubatch
  const layout = new Layout(MODULE_BYTES)
  const kernelScratch = scratchBytes(widestColumns(hyper), hyper.heads, hyper.headDim)
  const sizes = workerSizes(hyper, limits, kernelScratch, longestFileRow(model.file.tensors.values()))
  const workers = layout.reserve(limits.threads * sizes.workerBytes, 4096)
  const stepOffset = layout.reserve(step.bytes)
  const angles = layout.reserve(tokens * hyper.rotary * 4)
  const x = layout.reserve(tokens * hyper.hidden * 4)
  const normed = layout.reserve(tokens * hyper.hidden * 4)
  const queryWidth = hyper.heads * hyper.headDim
  const keyWidth = hyper.kvHeads * hyper.headDim
  const records = reserveRecords(layout, limits.activations, [[tokens, Math.max(hyper.hidden, queryWidth)]])
  const q = layout.reserve(tokens * queryWidth * 4)
  const k = layout.reserve(tokens * keyWidth * 4)
  const v = layout.reserve(tokens * keyWidth * 4)
  const attended = layout.reserve(tokens * queryWidth * 4)
  // enough for one token of every sequence, as long as they share no block of the cache
  const attentionChunks = Math.ceil(limits.kvTokens / ATTENTION_CHUNK_TOKENS) + limits.sequences
  const attentionParts = layout.reserve(attentionChunks * attentionPartBytes(hyper.heads, hyper.headDim))
  const routerLogits = layout.reserve(tokens * hyper.experts * 4)
  const expertIds = layout.reserve(tokens * hyper.expertsUsed * 4)
  const expertWeights = layout.reserve(tokens * hyper.expertsUsed * 4)
  const expertRows = layout.reserve(hyper.experts * 4)
  const narrow = Math.max(hyper.ffnDense, hyper.ffnShared)
  const pairs = tokens * hyper.expertsUsed
  const ffnHidden = layout.reserve(Math.max(tokens * narrow, pairs * hyper.ffnExpert) * 4)
  const ffnRecords = reserveRecords(layout, limits.activations, [
    [tokens, narrow],
    [pairs, hyper.ffnExpert],
  ])
  const shared = layout.reserve(tokens * hyper.hidden * 4)
  const routed = layout.reserve(tokens * hyper.hidden * 4)
  const logits = layout.reserve(limits.outputs * hyper.vocabulary * 4)
  // whole cache lines: workers write theirs at the same time
  const bestBytes = Math.ceil((limits.outputs * 8) / 64) * 64
  const best = layout.reserve(limits.threads * bestBytes)
  return {
    workers,
    ...sizes,
    step: stepOffset,
    angles,
    x,
    normed,
    records,
    q,
    k,
    v,
    attended,
    attentionParts,
    attentionChunks,
    routerLogits,
    expertIds,
    expertWeights,
    expertRows,
    ffnHidden,
    ffnRecords,
    shared,
    routed,
    logits,
    best,
    bestBytes,
    end: Math.ceil(layout.bytes / 4096) * 4096,
  }
}

const activations = (matrices: readonly Matrix[], precision: ActivationPrecision): Activation[] =>
  activationsOf(matrices.map(({ tensor }) => ({ activation: activationOf(FORMATS[tensor.format], precision) })))

/** What some feed-forward networks read: the forms of their input. */
export const inputActivations = (ffns: readonly FeedForward[], precision: ActivationPrecision): Activation[] =>
  activations(
    ffns.flatMap(({ gate, up }) => [gate, up]),
    precision,
  )

/**
 * Offsets of the prefix where the pool has nothing but routed experts: what the GPU hands over, what the experts need on the way, and their sum. All
 * of it is page-locked for the GPU, so there is nothing that these experts' formats do not ask for.
 */
export function expertsLayout({ hyper }: Model, limits: Limits, routed: readonly FeedForward[]): ArenaLayout {
  const { hidden, ffnExpert, experts, expertsUsed } = hyper
  const tokens = limits.ubatch
  const pairs = tokens * expertsUsed
  const layout = new Layout(MODULE_BYTES)
  const tensors = routed.flatMap(({ gate, up, down }) => [gate.tensor, up.tensor, down.tensor])
  // no attention: no heads
  const sizes = workerSizes(hyper, limits, scratchBytes(Math.max(hidden, ffnExpert), 0, 0), longestFileRow(tensors))
  const workers = layout.reserve(limits.threads * sizes.workerBytes, 4096)
  const inputs = inputActivations(routed, limits.activations)
  const hiddens = activations(
    routed.map(({ down }) => down),
    limits.activations,
  )
  const wanted = (list: readonly Activation[], activation: Activation, rows: number, columns: number): number =>
    list.includes(activation) ? layout.reserve(rows * recordBytes(activation, columns)) : 0
  return {
    workers,
    ...sizes,
    normed: wanted(inputs, 'f32', tokens, hidden),
    records: recordOffsets(limits.activations, (format) => wanted(inputs, format, tokens, hidden)),
    expertIds: layout.reserve(pairs * 4),
    expertWeights: layout.reserve(pairs * 4),
    expertRows: layout.reserve(experts * 4),
    ffnHidden: layout.reserve(pairs * ffnExpert * 4),
    ffnRecords: recordOffsets(limits.activations, (format) => wanted(hiddens, format, pairs, ffnExpert)),
    routed: layout.reserve(tokens * hidden * 4),
    ...NOT_IN_EXPERTS,
    end: Math.ceil(layout.bytes / 4096) * 4096,
  }
}

/** What only the other stages need. */
const NOT_IN_EXPERTS = {
  step: 0,
  angles: 0,
  x: 0,
  q: 0,
  k: 0,
  v: 0,
  attended: 0,
  attentionParts: 0,
  attentionChunks: 0,
  routerLogits: 0,
  shared: 0,
  logits: 0,
  best: 0,
  bestBytes: 0,
}
