/** Compiles a plan into a program. Pure. */
import { activationsOf, FORMATS } from '../abi/formats.ts'
import { GATING, recordBytes } from '../abi/kernels.ts'
import { TandemError } from '../errors.ts'
import type { Hyperparameters, Model } from '../model/types.ts'
import type { PlacedFeedForward, PlacedLayer, PlacedMatrix, PlacedVector, Plan } from '../placement/types.ts'
import type { FeedForwardCall, MatrixCall, Program, ProgramShape, StageCall, TransferBuffer } from './program.ts'

function matrixCall(placed: PlacedMatrix): MatrixCall {
  const format = FORMATS[placed.matrix.tensor.format]
  return {
    format: format.id,
    activation: format.activation,
    offset: placed.offset,
    rows: placed.matrix.rows,
    columns: placed.matrix.columns,
    expertBytes: placed.expertBytes,
  }
}

function ffnCall(ffn: PlacedFeedForward): FeedForwardCall {
  const [gate, up, down] = [matrixCall(ffn.gate), matrixCall(ffn.up), matrixCall(ffn.down)]
  if (gate.activation !== up.activation) {
    const names = [ffn.gate, ffn.up].map(({ matrix }) => `${matrix.tensor.name} (${matrix.tensor.format})`)
    throw new TandemError('ERR_FORMAT_UNSUPPORTED', `${names.join(' and ')} cannot share one input: both must be of one family of formats`)
  }
  return { gate, up, down }
}

/** Offset of an optional vector; 0 is never a weight's offset. */
const vectorOffset = (placed: PlacedVector | undefined): number => placed?.offset ?? 0

function ropeFrequencies(hyper: Hyperparameters): number[] {
  const factor = hyper.ropeScaling.type === 'linear' ? 1 / hyper.ropeScaling.factor : 1
  return Array.from({ length: hyper.rotary / 2 }, (_, pair) => factor * hyper.ropeBase ** ((-2 * pair) / hyper.rotary))
}

function programShape(hyper: Hyperparameters): ProgramShape {
  const { hidden, heads, kvHeads, headDim, rotary, epsilon, experts, expertsUsed, ffnExpert, vocabulary } = hyper
  const { normalizeWeights, weightsScale } = hyper
  return {
    hidden,
    heads,
    kvHeads,
    headDim,
    rotary,
    epsilon,
    experts,
    expertsUsed,
    ffnExpert,
    vocabulary,
    normalizeWeights,
    weightsScale,
    gating: GATING[hyper.gating],
    ropeFrequencies: ropeFrequencies(hyper),
  }
}

/** Builds the list of calls, inserting a transfer wherever the next call's arena is not the one that holds its input. */
class Compiler {
  readonly calls: StageCall[] = []
  readonly #plan: Plan
  readonly #hyper: Hyperparameters
  /** The arena whose `x` is current. */
  #home: number

  constructor(model: Model, plan: Plan) {
    this.#plan = plan
    this.#hyper = model.hyper
    this.#home = plan.embedding.arena
    this.calls.push({ stage: 'embed', arena: this.#home, weights: matrixCall(plan.embedding) })
  }

  /** Brings the residual stream to an arena. */
  #moveHome(arena: number): void {
    if (arena === this.#home) return
    this.#transfer(this.#home, arena, [{ name: 'x', offset: this.#plan.arena.x, bytesPerToken: this.#hyper.hidden * 4 }])
    this.#home = arena
  }

  #transfer(from: number, arena: number, buffers: readonly TransferBuffer[]): void {
    this.calls.push({ stage: 'transfer', arena, from, buffers })
  }

  layer(placed: PlacedLayer, layer: number): void {
    const { arena, attention, keyCache, valueCache } = placed
    this.#moveHome(arena)
    this.calls.push({
      stage: 'attention',
      arena,
      layer,
      norm: attention.norm.offset,
      q: matrixCall(attention.q),
      k: matrixCall(attention.k),
      v: matrixCall(attention.v),
      output: matrixCall(attention.output),
      qBias: vectorOffset(attention.qBias),
      kBias: vectorOffset(attention.kBias),
      vBias: vectorOffset(attention.vBias),
      qNorm: vectorOffset(attention.qNorm),
      kNorm: vectorOffset(attention.kNorm),
      keyCache,
      valueCache,
    })
    const norm = placed.ffnNorm.offset
    if (placed.dense) this.calls.push({ stage: 'denseFfn', arena, layer, norm, weights: ffnCall(placed.dense) })
    else this.#experts(placed, layer, norm)
  }

  #experts(placed: PlacedLayer, layer: number, norm: number): void {
    const { arena, router, shared, routed } = placed
    if (!router) return
    const groups = routed.map(ffnCall)
    const inputs = [...(shared ? [ffnCall(shared)] : []), ...groups].flatMap((ffn) => [ffn.gate, ffn.up])
    const gate = matrixCall(router.gate)
    const selectionBias = vectorOffset(router.selectionBias)
    this.calls.push({ stage: 'router', arena, layer, norm, gate, selectionBias, records: activationsOf(inputs) })
    if (shared) this.calls.push({ stage: 'sharedExperts', arena, layer, weights: ffnCall(shared) })
    let at = arena
    routed.forEach((group, index) => {
      const call = groups[index]!
      const target = group.gate.arena
      if (target !== at) this.#transfer(at, target, this.#expertInputs(call, index > 0))
      at = target
      const { expertBegin, expertEnd } = group.gate
      this.calls.push({ stage: 'routedExperts', arena: at, layer, expertBegin, expertEnd, isFirst: index === 0, weights: call })
    })
    if (at !== arena) this.#transfer(at, arena, [this.#routedBuffer()])
    this.calls.push({ stage: 'combine', arena, layer, hasShared: shared !== undefined })
  }

  #routedBuffer(): TransferBuffer {
    return { name: 'routed', offset: this.#plan.arena.routed, bytesPerToken: this.#hyper.hidden * 4 }
  }

  /** What experts in another arena read: the normed rows in the formats they want, the routing, and the sum so far. */
  #expertInputs(call: FeedForwardCall, hasSum: boolean): TransferBuffer[] {
    const { arena } = this.#plan
    const { hidden, expertsUsed } = this.#hyper
    const inputs = activationsOf([call.gate, call.up]).map((activation) => ({
      name: activation === 'f32' ? 'normed' : `records.${activation}`,
      offset: activation === 'f32' ? arena.normed : arena.records[activation],
      bytesPerToken: recordBytes(activation, hidden),
    }))
    const routing = [
      { name: 'expertIds', offset: arena.expertIds, bytesPerToken: expertsUsed * 4 },
      { name: 'expertWeights', offset: arena.expertWeights, bytesPerToken: expertsUsed * 4 },
    ]
    return [...inputs, ...routing, ...(hasSum ? [this.#routedBuffer()] : [])]
  }

  head(): void {
    const { head, outputNorm } = this.#plan
    this.#moveHome(head.arena)
    this.calls.push({ stage: 'head', arena: head.arena, norm: outputNorm.offset, weights: matrixCall(head) })
  }
}

/** The program of a plan. */
export function compile(model: Model, plan: Plan): Program {
  const compiler = new Compiler(model, plan)
  plan.layers.forEach((layer, index) => compiler.layer(layer, index))
  compiler.head()
  return { shape: programShape(model.hyper), step: plan.step, arena: plan.arena, calls: compiler.calls }
}
