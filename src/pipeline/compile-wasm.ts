/** Compiles the pool's part of a plan into its program. Pure. */
import { activationOf, type ActivationPrecision, activationsOf, FORMATS } from '../abi/formats.ts'
import { productFlags, recordBytes } from '../abi/kernels.ts'
import { TandemError } from '../errors.ts'
import type { Hyperparameters, Model } from '../model/types.ts'
import type {
  ArenaLayout,
  PlacedExperts,
  PlacedFeedForward,
  PlacedLayer,
  PlacedMatrix,
  PlacedVector,
  WasmExpertsPlan,
  WasmModelPlan,
} from '../placement/types.ts'
import type { FeedForwardCall, MatrixCall, ProgramEntry, StageCall, TransferBuffer } from './program.ts'

function matrixCall(placed: PlacedMatrix, precision: ActivationPrecision): MatrixCall {
  const format = FORMATS[placed.matrix.tensor.format]
  const activation = activationOf(format, precision)
  return {
    format: format.id,
    activation,
    flags: productFlags(activation),
    offset: placed.offset,
    rows: placed.matrix.rows,
    columns: placed.matrix.columns,
    expertBytes: placed.expertBytes,
  }
}

function ffnCall(ffn: PlacedFeedForward, precision: ActivationPrecision): FeedForwardCall {
  const [gate, up, down] = [matrixCall(ffn.gate, precision), matrixCall(ffn.up, precision), matrixCall(ffn.down, precision)]
  if (gate.activation !== up.activation) {
    const names = [ffn.gate, ffn.up].map(({ matrix }) => `${matrix.tensor.name} (${matrix.tensor.format})`)
    throw new TandemError('ERR_FORMAT_UNSUPPORTED', `${names.join(' and ')} cannot share one input: both must be of one family of formats`)
  }
  return { gate, up, down }
}

/** Offset of an optional vector; 0 is never a weight's offset. */
const vectorOffset = (placed: PlacedVector | undefined): number => placed?.offset ?? 0

/** A list of calls over arenas that all begin with the same prefix. */
class Calls {
  readonly list: StageCall[] = []
  readonly #arena: ArenaLayout
  readonly #hyper: Hyperparameters
  readonly #precision: ActivationPrecision

  constructor(arena: ArenaLayout, hyper: Hyperparameters, precision: ActivationPrecision) {
    this.#arena = arena
    this.#hyper = hyper
    this.#precision = precision
  }

  push(call: StageCall): void {
    this.list.push(call)
  }

  /** Brings the residual stream from one arena to another. */
  transferResidual(from: number, arena: number): void {
    this.#transfer(from, arena, [{ name: 'x', offset: this.#arena.x, bytesPerToken: this.#hyper.hidden * 4 }])
  }

  #transfer(from: number, arena: number, buffers: readonly TransferBuffer[]): void {
    if (from !== arena) this.push({ stage: 'transfer', arena, from, buffers })
  }

  /** A layer's routed experts: what they read begins in `home`, and their sum ends there. */
  routedExperts({ layer, routed }: PlacedExperts, home: number): void {
    let at = home
    for (const [index, group] of routed.entries()) {
      const weights = ffnCall(group, this.#precision)
      const { arena, expertBegin, expertEnd } = group.gate
      this.#transfer(at, arena, this.#expertInputs(weights, index > 0))
      at = arena
      this.push({ stage: 'routedExperts', arena, layer, expertBegin, expertEnd, isFirst: index === 0, weights })
    }
    this.#transfer(at, home, [this.#routedBuffer()])
  }

  #routedBuffer(): TransferBuffer {
    return { name: 'routed', offset: this.#arena.routed, bytesPerToken: this.#hyper.hidden * 4 }
  }

  /** What experts in another arena read: the normed rows in the formats they want, the routing, and the sum so far. */
  #expertInputs(call: FeedForwardCall, hasSum: boolean): TransferBuffer[] {
    const { hidden, expertsUsed } = this.#hyper
    const { normed, records, expertIds, expertWeights } = this.#arena
    const inputs = activationsOf([call.gate, call.up]).map((activation) => ({
      name: activation === 'f32' ? 'normed' : `records.${activation}`,
      offset: activation === 'f32' ? normed : records[activation],
      bytesPerToken: recordBytes(activation, hidden),
    }))
    const routing = [
      { name: 'expertIds', offset: expertIds, bytesPerToken: expertsUsed * 4 },
      { name: 'expertWeights', offset: expertWeights, bytesPerToken: expertsUsed * 4 },
    ]
    return [...inputs, ...routing, ...(hasSum ? [this.#routedBuffer()] : [])]
  }
}

function attentionCall(placed: PlacedLayer, precision: ActivationPrecision, selects: boolean): StageCall {
  const { arena, layer, attention, keyCache, valueCache } = placed
  return {
    stage: 'attention',
    arena,
    layer,
    norm: attention.norm.offset,
    q: matrixCall(attention.q, precision),
    k: matrixCall(attention.k, precision),
    v: matrixCall(attention.v, precision),
    output: matrixCall(attention.output, precision),
    qBias: vectorOffset(attention.qBias),
    kBias: vectorOffset(attention.kBias),
    vBias: vectorOffset(attention.vBias),
    qNorm: vectorOffset(attention.qNorm),
    kNorm: vectorOffset(attention.kNorm),
    keyCache,
    valueCache,
    selects,
  }
}

function pushFeedForward(calls: Calls, placed: PlacedLayer, precision: ActivationPrecision): void {
  const { arena, layer, dense, router, shared, routed } = placed
  const norm = placed.ffnNorm.offset
  if (dense) calls.push({ stage: 'denseFfn', arena, layer, norm, weights: ffnCall(dense, precision) })
  if (!router) return
  const inputs = [...(shared ? [shared] : []), ...routed].map((ffn) => ffnCall(ffn, precision)).flatMap(({ gate, up }) => [gate, up])
  const gate = matrixCall(router.gate, precision)
  const selectionBias = vectorOffset(router.selectionBias)
  calls.push({ stage: 'router', arena, layer, norm, gate, selectionBias, records: activationsOf(inputs) })
  if (shared) calls.push({ stage: 'sharedExperts', arena, layer, weights: ffnCall(shared, precision) })
  calls.routedExperts(placed, arena)
  calls.push({ stage: 'combine', arena, layer, hasShared: shared !== undefined })
}

/**
 * A whole step, with a transfer wherever the next call's arena is not the one that holds its input. `keepsRows`: the last layer, too, is worked out for
 * every token, though only what becomes logits is read behind it.
 */
export function modelCalls(
  { hyper }: Model,
  { arena, embedding, layers, head, outputNorm }: WasmModelPlan,
  precision: ActivationPrecision,
  keepsRows: boolean,
): StageCall[] {
  const calls = new Calls(arena, hyper, precision)
  calls.push({ stage: 'embed', arena: embedding.arena, weights: matrixCall(embedding, precision) })
  /** The arena whose `x` is current. */
  let home = embedding.arena
  for (const [index, placed] of layers.entries()) {
    calls.transferResidual(home, placed.arena)
    home = placed.arena
    calls.push(attentionCall(placed, precision, !keepsRows && index === layers.length - 1))
    pushFeedForward(calls, placed, precision)
  }
  calls.transferResidual(home, head.arena)
  calls.push({ stage: 'head', arena: head.arena, isSelected: !keepsRows, norm: outputNorm.offset, weights: matrixCall(head, precision) })
  return calls.list
}

/** The routed experts of the layers that a GPU hands over, each layer by itself: what it reads and leaves is in its first group's arena. */
export function expertCalls(
  { hyper }: Model,
  { arena, layers }: WasmExpertsPlan,
  precision: ActivationPrecision,
): { calls: StageCall[]; entries: ProgramEntry[] } {
  const calls = new Calls(arena, hyper, precision)
  const entries = layers.map((placed) => {
    const begin = calls.list.length
    calls.routedExperts(placed, placed.routed[0]!.gate.arena)
    return { layer: placed.layer, begin, end: calls.list.length }
  })
  return { calls: calls.list, entries }
}
