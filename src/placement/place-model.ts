/**
 * Placement of a whole model on the pool: decides which arena every weight goes to. Arenas are filled in the order in which a token meets the
 * weights, so that the activations cross from one arena to the next as rarely as possible.
 */
import { cacheBytes } from '../abi/kernels.ts'
import type { FeedForward, Layer, Matrix, Model, Vector } from '../model/types.ts'
import { ArenaFiller, type CacheBytes, packedMatrixBytes, padded, paddedCache } from './arena-filler.ts'
import { arenaLayout } from './arena-layout.ts'
import type { DeviceBytes, Limits, PlacedLayer, PlacedVector, StepLayout, WasmModelPlan } from './types.ts'

const ffnMatrices = (ffn: FeedForward | undefined): Matrix[] => (ffn ? [ffn.gate, ffn.up, ffn.down] : [])

/** Bytes of everything in a layer but the routed experts, alignment included. */
function coreBytes(layer: Layer, cache: CacheBytes): number {
  const { attention } = layer
  const matrices = [attention.q, attention.k, attention.v, attention.output, ...ffnMatrices(layer.dense), ...ffnMatrices(layer.shared)]
  if (layer.router) matrices.push(layer.router.gate)
  const vectors = [attention.norm, attention.qBias, attention.kBias, attention.vBias, attention.qNorm, attention.kNorm, layer.ffnNorm]
  vectors.push(layer.router?.selectionBias)
  const weights = matrices.reduce((sum, matrix) => sum + padded(packedMatrixBytes(matrix)), 0)
  return vectors.reduce((sum, vector) => sum + padded((vector?.length ?? 0) * 4), weights) + 2 * paddedCache(cache)
}

function placeLayer(filler: ArenaFiller, layer: Layer, cache: CacheBytes): PlacedLayer {
  const kvBytes = 2 * (cache.scales + cache.integers)
  filler.ensure(coreBytes(layer, cache), `layer ${layer.index} (its ${kvBytes} bytes of KV cache included)`)
  const { attention } = layer
  const vector = (value: Vector | undefined): PlacedVector | undefined => value && filler.vector(value)
  const optional = <Key extends string>(key: Key, value: Vector | undefined): Record<Key, PlacedVector> | object => {
    const placed = vector(value)
    return placed ? { [key]: placed } : {}
  }
  const arena = filler.index
  const core = {
    layer: layer.index,
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
    keyCache: filler.cache(cache),
    valueCache: filler.cache(cache),
    ffnNorm: filler.vector(layer.ffnNorm),
    ...(layer.dense ? { dense: filler.feedForward(layer.dense) } : {}),
    ...(layer.router
      ? { router: { gate: filler.matrix(layer.router.gate), ...optional('selectionBias', layer.router.selectionBias) } }
      : {}),
    ...(layer.shared ? { shared: filler.feedForward(layer.shared) } : {}),
  }
  return { ...core, routed: filler.routed(layer) }
}

/** Places a whole model on the pool. Pure. Throws `ERR_ARENA_LIMIT`. */
export function placeModel(model: Model, limits: Limits, step: StepLayout): { wasm: WasmModelPlan; bytes: DeviceBytes } {
  const { hyper } = model
  const arena = arenaLayout(model, limits, step)
  const filler = new ArenaFiller(arena.end, limits)
  const cache = cacheBytes(limits.kvTokens, hyper.kvHeads, hyper.headDim)
  const tied = model.head === model.embedding
  const normBytes = padded(hyper.hidden * 4)
  filler.ensure(padded(packedMatrixBytes(model.embedding)) + (tied ? normBytes : 0), 'the token embedding')
  const embedding = filler.matrix(model.embedding)
  // the head and its norm share an arena: at the end of the model, or with the embedding when that is the head
  const tiedNorm = tied ? filler.vector(model.outputNorm) : undefined
  const layers = model.layers.map((layer) => placeLayer(filler, layer, cache))
  if (!tied) filler.ensure(normBytes + padded(packedMatrixBytes(model.head)), 'the output head')
  const outputNorm = tiedNorm ?? filler.vector(model.outputNorm)
  const head = tied ? embedding : filler.matrix(model.head)
  return { wasm: { holds: 'model', arena, arenas: filler.arenaBytes, embedding, outputNorm, head, layers }, bytes: filler.deviceBytes }
}
