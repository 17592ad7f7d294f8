/**
 * Placement: decides which arena every weight goes to. Arenas are filled in the order in which a token meets the weights, so that the
 * activations cross from one arena to the next as rarely as possible.
 */
import { FORMATS, packedBytes } from '../abi/formats.ts'
import { KV_BLOCK_TOKENS } from '../abi/kernels.ts'
import { TandemError } from '../errors.ts'
import type { FeedForward, Layer, Matrix, Model, Vector } from '../model/types.ts'
import { Layout, PAGE_BYTES } from '../ring/arena.ts'
import { arenaLayout } from './arena-layout.ts'
import type { PipelineDefinition } from './stages.ts'
import { stepLayout } from './step-layout.ts'
import type { DeviceBytes, Limits, PlacedFeedForward, PlacedLayer, PlacedMatrix, PlacedVector, Plan } from './types.ts'

const ALIGN = 64

const expertBytes = (matrix: Matrix): number => packedBytes(FORMATS[matrix.tensor.format], matrix.rows, matrix.columns)
const padded = (bytes: number): number => Math.ceil(bytes / ALIGN) * ALIGN

/** Fills arenas one after the other. */
class ArenaFiller {
  readonly arenas: Layout[] = []
  weights = 0
  kvCache = 0
  readonly #prefix: number
  readonly #limit: number

  constructor(prefix: number, limit: number) {
    this.#prefix = prefix
    this.#limit = limit
    if (prefix > limit) {
      throw new TandemError(
        'ERR_ARENA_LIMIT',
        `the buffers of a step need ${prefix} bytes, an arena may have ${limit}: lower ubatch or outputs`,
      )
    }
    this.#open()
  }

  #open(): void {
    this.arenas.push(new Layout(this.#prefix))
  }

  get index(): number {
    return this.arenas.length - 1
  }

  get #current(): Layout {
    return this.arenas[this.index]!
  }

  /** Bytes left in the current arena. */
  get room(): number {
    return this.#limit - padded(this.#current.bytes)
  }

  /** Makes sure that `bytes` fit in the current arena, opening a new one if need be. */
  ensure(bytes: number, what: string): void {
    if (bytes <= this.room) return
    const empty = this.#limit - padded(this.#prefix)
    if (bytes > empty) {
      throw new TandemError(
        'ERR_ARENA_LIMIT',
        `${what} needs ${bytes} bytes in one arena; an arena of ${this.#limit} bytes has room for ${empty}`,
      )
    }
    this.#open()
  }

  /** Opens a new arena unless the current one holds nothing yet. */
  next(): void {
    if (this.#current.bytes > this.#prefix) this.#open()
  }

  matrix(matrix: Matrix, expertBegin = 0, expertEnd = matrix.experts): PlacedMatrix {
    const bytes = expertBytes(matrix)
    this.weights += bytes * (expertEnd - expertBegin)
    const offset = this.#current.reserve(bytes * (expertEnd - expertBegin), ALIGN)
    return { matrix, arena: this.index, offset, expertBegin, expertEnd, expertBytes: bytes }
  }

  vector(vector: Vector): PlacedVector {
    this.weights += vector.length * 4
    return { vector, arena: this.index, offset: this.#current.reserve(vector.length * 4, ALIGN) }
  }

  cache(bytes: number): number {
    this.kvCache += bytes
    return this.#current.reserve(bytes, ALIGN)
  }

  feedForward(ffn: FeedForward, begin = 0, end = ffn.gate.experts): PlacedFeedForward {
    return { gate: this.matrix(ffn.gate, begin, end), up: this.matrix(ffn.up, begin, end), down: this.matrix(ffn.down, begin, end) }
  }
}

const ffnMatrices = (ffn: FeedForward | undefined): Matrix[] => (ffn ? [ffn.gate, ffn.up, ffn.down] : [])

/** Bytes of everything in a layer but the routed experts, alignment included. */
function coreBytes(layer: Layer, cacheBytes: number): number {
  const { attention } = layer
  const matrices = [attention.q, attention.k, attention.v, attention.output, ...ffnMatrices(layer.dense), ...ffnMatrices(layer.shared)]
  if (layer.router) matrices.push(layer.router.gate)
  const vectors = [attention.norm, attention.qBias, attention.kBias, attention.vBias, attention.qNorm, attention.kNorm, layer.ffnNorm]
  vectors.push(layer.router?.selectionBias)
  const weights = matrices.reduce((sum, matrix) => sum + padded(expertBytes(matrix)), 0)
  return vectors.reduce((sum, vector) => sum + padded((vector?.length ?? 0) * 4), weights) + 2 * padded(cacheBytes)
}

/** Bytes of one expert of a routed feed-forward network, with what alignment may add for a range of experts. */
const bytesPerExpert = (ffn: FeedForward): number => ffnMatrices(ffn).reduce((sum, matrix) => sum + expertBytes(matrix), 0)

/** Places a layer's experts, over several arenas when they do not fit in the rest of this one. */
function placeRouted(filler: ArenaFiller, layer: Layer): PlacedFeedForward[] {
  const { routed } = layer
  if (!routed) return []
  const each = bytesPerExpert(routed)
  const slack = 3 * ALIGN
  const groups: PlacedFeedForward[] = []
  for (let begin = 0; begin < routed.gate.experts;) {
    const left = routed.gate.experts - begin
    let fit = Math.min(left, Math.floor((filler.room - slack) / each))
    if (fit < 1) {
      filler.next()
      filler.ensure(each + slack, `one expert of layer ${layer.index}`)
      fit = Math.min(left, Math.floor((filler.room - slack) / each))
    }
    groups.push(filler.feedForward(routed, begin, begin + fit))
    begin += fit
  }
  return groups
}

function placeLayer(filler: ArenaFiller, layer: Layer, cacheBytes: number): PlacedLayer {
  filler.ensure(coreBytes(layer, cacheBytes), `layer ${layer.index} (its ${2 * cacheBytes} bytes of KV cache included)`)
  const { attention } = layer
  const vector = (value: Vector | undefined): PlacedVector | undefined => value && filler.vector(value)
  const optional = <Key extends string>(key: Key, value: Vector | undefined): Record<Key, PlacedVector> | object => {
    const placed = vector(value)
    return placed ? { [key]: placed } : {}
  }
  const arena = filler.index
  const core = {
    arena,
    attention: {
      norm: filler.vector(attention.norm),
      q: filler.matrix(attention.q),
      k: filler.matrix(attention.k),
      v: filler.matrix(attention.v),
      output: filler.matrix(attention.output),
      ...optional('qBias', attention.qBias),
      ...optional('kBias', attention.kBias),
      ...optional('vBias', attention.vBias),
      ...optional('qNorm', attention.qNorm),
      ...optional('kNorm', attention.kNorm),
    },
    keyCache: filler.cache(cacheBytes),
    valueCache: filler.cache(cacheBytes),
    ffnNorm: filler.vector(layer.ffnNorm),
    ...(layer.dense ? { dense: filler.feedForward(layer.dense) } : {}),
    ...(layer.router
      ? { router: { gate: filler.matrix(layer.router.gate), ...optional('selectionBias', layer.router.selectionBias) } }
      : {}),
    ...(layer.shared ? { shared: filler.feedForward(layer.shared) } : {}),
  }
  return { ...core, routed: placeRouted(filler, layer) }
}

/** Places a whole model on the pool. Pure. Throws `ERR_ARENA_LIMIT`. */
export function place(model: Model, pipeline: PipelineDefinition, limits: Limits): Plan {
  const { hyper } = model
  const step = stepLayout(limits)
  const arena = arenaLayout(model, limits, step)
  const filler = new ArenaFiller(arena.end, Math.floor(limits.arenaBytes / PAGE_BYTES) * PAGE_BYTES)
  const cacheBytes = (limits.kvTokens / KV_BLOCK_TOKENS) * hyper.kvHeads * KV_BLOCK_TOKENS * hyper.headDim * 2
  const tied = model.head === model.embedding
  const normBytes = padded(hyper.hidden * 4)
  filler.ensure(padded(expertBytes(model.embedding)) + (tied ? normBytes : 0), 'the token embedding')
  const embedding = filler.matrix(model.embedding)
  // the head and its norm share an arena: at the end of the model, or with the embedding when that is the head
  const tiedNorm = tied ? filler.vector(model.outputNorm) : undefined
  const layers = model.layers.map((layer) => placeLayer(filler, layer, cacheBytes))
  if (!tied) filler.ensure(normBytes + expertBytes(model.head), 'the output head')
  const outputNorm = tiedNorm ?? filler.vector(model.outputNorm)
  const head = tied ? embedding : filler.matrix(model.head)
  const arenas = filler.arenas.map((layout) => Math.ceil(layout.bytes / PAGE_BYTES) * PAGE_BYTES)
  const bytes = arenas.reduce((sum, each) => sum + each, 0)
  const devices: DeviceBytes[] = [
    { id: 'wasm', bytes, weights: filler.weights, kvCache: filler.kvCache, buffers: bytes - filler.weights - filler.kvCache },
  ]
  return { pipeline, limits, step, arena, arenas, embedding, outputNorm, head, layers, devices }
}
