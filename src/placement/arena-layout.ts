/** The prefix of every arena: what the kernels need besides weights and KV cache. */
import { FORMATS } from '../abi/formats.ts'
import { ATTENTION_CHUNK_TOKENS, attentionPartBytes, recordBytes, scratchBytes } from '../abi/kernels.ts'
import type { Hyperparameters, Model } from '../model/types.ts'
import { Layout } from '../ring/arena.ts'
import type { ArenaLayout, Limits, StepLayout } from './types.ts'

/** The kernel module's own static data; `serve` checks that it fits. */
export const MODULE_BYTES = 65536

const STACK_BYTES = 65536

/** Bytes that a worker reads from the file at a time while it loads. */
export const STAGING_BYTES = 1 << 20

/** Columns of the widest matrix. */
function widestColumns(hyper: Hyperparameters): number {
  return Math.max(hyper.hidden, hyper.heads * hyper.headDim, hyper.ffnDense, hyper.ffnShared, hyper.ffnExpert)
}

/** Bytes of the longest file row of any matrix: a panel of 8 such rows must fit in the staging bytes. */
function longestFileRow(model: Model): number {
  let longest = 0
  for (const tensor of model.file.tensors.values()) {
    const format = FORMATS[tensor.format]
    longest = Math.max(longest, ((tensor.shape[0] ?? 0) / format.blockElements) * format.blockBytes)
  }
  return longest
}

/** Reserves record buffers that can hold any one of `shapes` at a time: [rows, columns]. q8x256 exists for whole super-blocks only. */
function reserveRecords(layout: Layout, shapes: readonly (readonly [number, number])[]): Record<'q8x32' | 'q8x256', number> {
  const bytes = (activation: 'q8x32' | 'q8x256', block: number): number =>
    Math.max(...shapes.map(([rows, columns]) => rows * recordBytes(activation, Math.ceil(columns / block) * block)))
  return { q8x32: layout.reserve(bytes('q8x32', 32)), q8x256: layout.reserve(bytes('q8x256', 256)) }
}

/** Offsets of the prefix for a model and limits. */
export function arenaLayout(model: Model, limits: Limits, step: StepLayout): ArenaLayout {
  const { hyper } = model
  const tokens = limits.ubatch
  const layout = new Layout(MODULE_BYTES)
  // grouping of (token, expert) pairs is private to each worker, see wasm/stages/routed-experts.ts
  const groupBytes = Math.ceil(((hyper.experts + 1) * 4) / 64) * 64 + tokens * hyper.expertsUsed * 8
  const kernelScratch = scratchBytes(widestColumns(hyper), hyper.heads, hyper.headDim)
  const scratch = Math.ceil(Math.max(kernelScratch, STAGING_BYTES, longestFileRow(model) * 8) / 64) * 64
  const workerBytes = Math.ceil((STACK_BYTES + scratch + groupBytes) / 64) * 64
  const workers = layout.reserve(limits.threads * workerBytes, 4096)
  const stepOffset = layout.reserve(step.bytes)
  const angles = layout.reserve(tokens * hyper.rotary * 4)
  const x = layout.reserve(tokens * hyper.hidden * 4)
  const normed = layout.reserve(tokens * hyper.hidden * 4)
  const queryWidth = hyper.heads * hyper.headDim
  const keyWidth = hyper.kvHeads * hyper.headDim
  const records = reserveRecords(layout, [[tokens, Math.max(hyper.hidden, queryWidth)]])
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
  const narrow = Math.max(hyper.ffnDense, hyper.ffnShared)
  const pairs = tokens * hyper.expertsUsed
  const ffnHidden = layout.reserve(Math.max(tokens * narrow, pairs * hyper.ffnExpert) * 4)
  const ffnRecords = reserveRecords(layout, [
    [tokens, narrow],
    [pairs, hyper.ffnExpert],
  ])
  const shared = layout.reserve(tokens * hyper.hidden * 4)
  const routed = layout.reserve(tokens * hyper.hidden * 4)
  const logits = layout.reserve(limits.outputs * hyper.vocabulary * 4)
  return {
    workers,
    workerBytes,
    stackBytes: STACK_BYTES,
    scratchBytes: scratch,
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
    ffnHidden,
    ffnRecords,
    shared,
    routed,
    logits,
    end: Math.ceil(layout.bytes / 4096) * 4096,
  }
}
