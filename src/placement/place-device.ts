/** Placement on a GPU: where every weight and every KV cache lies in the device's two regions. */
import { CUDA_MOST_TOP } from '../abi/cuda.ts'
import { FORMATS, rowBytes } from '../abi/formats.ts'
import { KV_BLOCK_TOKENS } from '../abi/kernels.ts'
import type { FeedForward, Layer, Matrix, Model, Vector } from '../model/types.ts'
import { Layout } from '../ring/arena.ts'
import { deviceBufferBytes } from './device-buffers.ts'
import { checkDeviceFormat, checkDeviceShape } from './device-limits.ts'
import { deviceCacheBytes } from './limits.ts'
import type {
  CudaPlan,
  DeviceBytes,
  DeviceFeedForward,
  DeviceLayer,
  DeviceMatrix,
  DeviceShape,
  DeviceVector,
  Handoff,
  Limits,
  StepLayout,
} from './types.ts'

/** Everything on the device begins at a multiple of this. */
const ALIGN = 256

/** Lays out a GPU's weight region and cache region. */
class DeviceFiller {
  readonly #weights = new Layout()
  readonly #cache = new Layout()

  /** Bytes of the regions. */
  get bytes(): { readonly weightBytes: number; readonly cacheBytes: number } {
    const whole = (region: Layout): number => Math.ceil(region.bytes / ALIGN) * ALIGN
    return { weightBytes: whole(this.#weights), cacheBytes: whole(this.#cache) }
  }

  matrix(matrix: Matrix): DeviceMatrix {
    checkDeviceFormat(matrix)
    const expertBytes = matrix.rows * rowBytes(FORMATS[matrix.tensor.format], matrix.columns)
    const bytes = matrix.experts * expertBytes
    return { matrix, offset: this.#weights.reserve(bytes, ALIGN), bytes, expertBytes }
  }

  vector(vector: Vector): DeviceVector {
    return { vector, offset: this.#weights.reserve(vector.length * 4, ALIGN) }
  }

  optional<Key extends string>(key: Key, vector: Vector | undefined): { readonly [Name in Key]?: DeviceVector } {
    return vector ? ({ [key]: this.vector(vector) } as { readonly [Name in Key]: DeviceVector }) : {}
  }

  feedForward({ gate, up, down }: FeedForward): DeviceFeedForward {
    return { gate: this.matrix(gate), up: this.matrix(up), down: this.matrix(down) }
  }

  cache(bytes: number): number {
    return this.#cache.reserve(bytes, ALIGN)
  }
}

function placeLayer(filler: DeviceFiller, layer: Layer, cacheBytes: number, handoff: Handoff | undefined): DeviceLayer {
  const { attention, dense, router, shared, routed } = layer
  return {
    attention: {
      norm: filler.vector(attention.norm),
      q: filler.matrix(attention.q),
      k: filler.matrix(attention.k),
      v: filler.matrix(attention.v),
      output: filler.matrix(attention.output),
      ...filler.optional('qBias', attention.qBias),
      ...filler.optional('kBias', attention.kBias),
      ...filler.optional('vBias', attention.vBias),
      ...filler.optional('qNorm', attention.qNorm),
      ...filler.optional('kNorm', attention.kNorm),
    },
    keyCache: filler.cache(cacheBytes),
    valueCache: filler.cache(cacheBytes),
    ffnNorm: filler.vector(layer.ffnNorm),
    ...(dense ? { dense: filler.feedForward(dense) } : {}),
    ...(router ? { router: { gate: filler.matrix(router.gate), ...filler.optional('selectionBias', router.selectionBias) } } : {}),
    ...(shared ? { shared: filler.feedForward(shared) } : {}),
    ...(handoff ? { handoff } : routed ? { routed: filler.feedForward(routed) } : {}),
  }
}

function deviceShape({ hyper, layers }: Model, limits: Limits, step: StepLayout, deviceExperts: boolean): DeviceShape {
  const { hidden, heads, kvHeads, headDim, rotary, vocabulary, ffnExpert, experts, expertsUsed } = hyper
  const { ubatch, sequences, outputs, kvTokens } = limits
  const { blocksPerSequence } = step
  const ffn = Math.max(0, ...layers.flatMap(({ dense, shared }) => [dense?.gate.rows ?? 0, shared?.gate.rows ?? 0]))
  return {
    hidden,
    heads,
    kvHeads,
    headDim,
    rotary,
    vocabulary,
    layers: layers.length,
    ffn,
    ffnExpert,
    experts,
    expertsUsed,
    deviceExperts,
    ubatch,
    sequences,
    outputs,
    kvBlocks: kvTokens / KV_BLOCK_TOKENS,
    blocksPerSequence,
    top: Math.min(CUDA_MOST_TOP, vocabulary),
    digits: limits.activations === 'q16' ? 2 : 1,
  }
}

/**
 * Places a model on a GPU, but for the routed experts of the layers in `handoffs`, which the pool has. Pure. Throws `ERR_FORMAT_UNSUPPORTED`,
 * `ERR_PIPELINE_INVALID`.
 */
export function placeDevice(
  model: Model,
  limits: Limits,
  step: StepLayout,
  device: number,
  handoffs: ReadonlyMap<number, Handoff>,
): CudaPlan {
  const filler = new DeviceFiller()
  const cacheBytes = deviceCacheBytes(model.hyper, limits)
  const embedding = filler.matrix(model.embedding)
  const layers = model.layers.map((layer) => placeLayer(filler, layer, cacheBytes, handoffs.get(layer.index)))
  const outputNorm = filler.vector(model.outputNorm)
  const head = model.head === model.embedding ? embedding : filler.matrix(model.head)
  const shape = deviceShape(
    model,
    limits,
    step,
    layers.some(({ routed }) => routed !== undefined),
  )
  checkDeviceShape(shape)
  return { device, shape, embedding, outputNorm, head, layers, ...filler.bytes, bufferBytes: deviceBufferBytes(shape) }
}

/** What a GPU's part of a plan takes. */
export function deviceBytes({ device, weightBytes, cacheBytes, bufferBytes }: CudaPlan): DeviceBytes {
  const bytes = weightBytes + cacheBytes + bufferBytes
  return { id: `cuda:${device}`, bytes, weights: weightBytes, kvCache: cacheBytes, buffers: bufferBytes }
}
