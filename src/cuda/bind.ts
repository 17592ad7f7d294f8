/** From a plan to the structs of the boundary. Pure. */
import { type Activation, FORMATS, type RecordFormat } from '../abi/formats.ts'
import type { CudaProgram } from '../pipeline/program.ts'
import type { ArenaLayout, CudaPlan, DeviceFeedForward, DeviceLayer, DeviceMatrix, DeviceVector, Handoff } from '../placement/types.ts'
import type { CudaStruct } from './library.ts'

/** Addresses of the device's two regions of memory. */
export interface Regions {
  readonly weights: number
  readonly caches: number
}

/** What an engine is opened for. */
export function shapeStruct({ shape: plan }: CudaPlan, { shape }: CudaProgram, deadlineMs: number): CudaStruct<'shape'> {
  const { gating, weightsScale, epsilon } = shape
  return {
    ...plan,
    deviceExperts: plan.deviceExperts ? 1 : 0,
    gating,
    normalizeWeights: shape.normalizeWeights ? 1 : 0,
    weightsScale,
    epsilon,
    deadlineMs: Math.min(Math.ceil(deadlineMs), 2 ** 31 - 1),
  }
}

function matrixStruct({ matrix, offset, expertBytes }: DeviceMatrix, { weights }: Regions): CudaStruct<'matrix'> {
  const { rows, columns, experts, tensor } = matrix
  return { address: weights + offset, expertBytes, format: FORMATS[tensor.format].id, rows, columns, experts }
}

function ffnStruct(ffn: DeviceFeedForward | undefined, regions: Regions): CudaStruct<'ffn'> | undefined {
  if (!ffn) return undefined
  return { gate: matrixStruct(ffn.gate, regions), up: matrixStruct(ffn.up, regions), down: matrixStruct(ffn.down, regions) }
}

const vectorAddress = (vector: DeviceVector | undefined, { weights }: Regions): number => (vector ? weights + vector.offset : 0)

/** A layer's weights and caches. */
export function layerStruct(layer: DeviceLayer, regions: Regions): CudaStruct<'layer'> {
  const { attention, router } = layer
  return {
    attentionNorm: vectorAddress(attention.norm, regions),
    qBias: vectorAddress(attention.qBias, regions),
    kBias: vectorAddress(attention.kBias, regions),
    vBias: vectorAddress(attention.vBias, regions),
    qNorm: vectorAddress(attention.qNorm, regions),
    kNorm: vectorAddress(attention.kNorm, regions),
    q: matrixStruct(attention.q, regions),
    k: matrixStruct(attention.k, regions),
    v: matrixStruct(attention.v, regions),
    output: matrixStruct(attention.output, regions),
    keyCache: regions.caches + layer.keyCache,
    valueCache: regions.caches + layer.valueCache,
    ffnNorm: vectorAddress(layer.ffnNorm, regions),
    dense: ffnStruct(layer.dense, regions),
    router: router && matrixStruct(router.gate, regions),
    selectionBias: vectorAddress(router?.selectionBias, regions),
    shared: ffnStruct(layer.shared, regions),
    routed: ffnStruct(layer.routed, regions),
  }
}

/** What belongs to no layer. */
export function modelStruct({ embedding, outputNorm, head }: CudaPlan, regions: Regions): CudaStruct<'model'> {
  return {
    embedding: matrixStruct(embedding, regions),
    outputNorm: vectorAddress(outputNorm, regions),
    head: matrixStruct(head, regions),
  }
}

/** Where a layer meets the pool. `base`: address of the hand-off's arena; `isHeld`: whether it may be changed before the pool is told. */
export function slotStruct({ entry, activations }: Handoff, at: ArenaLayout, base: number, isHeld: boolean): CudaStruct<'slot'> {
  const wanted = (activation: Activation, offset: number): number | null => (activations.includes(activation) ? base + offset : null)
  const records = (q8: RecordFormat, q16: RecordFormat): number | null => wanted(q8, at.records[q8]) ?? wanted(q16, at.records[q16])
  return {
    normed: wanted('f32', at.normed),
    q8x32: records('q8x32', 'q16x32'),
    q8x256: records('q8x256', 'q16x256'),
    expertIds: base + at.expertIds,
    expertWeights: base + at.expertWeights,
    routed: base + at.routed,
    entry,
    holds: isHeld ? 1 : 0,
  }
}
