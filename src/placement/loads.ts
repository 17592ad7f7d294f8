/** What has to be read to fill the arenas, cut into pieces that fit a worker's staging bytes. Pure. */
import { FORMATS, packedBytes, PANEL_ROWS, rowBytes } from '../abi/formats.ts'
import { STAGING_BYTES } from './arena-layout.ts'
import type { PlacedFeedForward, PlacedLayer, PlacedMatrix, PlacedVector, WasmModelPlan, WasmPlan } from './types.ts'

/** Rows of a tensor to be read, repacked and written at `offset` of an arena. */
export interface Load {
  readonly tensor: string
  readonly shard: number
  readonly fileOffset: number
  readonly fileBytes: number
  /** ggml type id. */
  readonly format: number
  readonly columns: number
  readonly rows: number
  readonly arena: number
  readonly offset: number
  /** Vectors become plain f32 instead of panels. */
  readonly isVector: boolean
}

function* matrixLoads(placed: PlacedMatrix): Generator<Load> {
  const { matrix } = placed
  const { tensor } = matrix
  const format = FORMATS[tensor.format]
  const fileRow = rowBytes(format, matrix.columns)
  const rowsPerLoad = Math.max(1, Math.floor(STAGING_BYTES / fileRow / PANEL_ROWS)) * PANEL_ROWS
  for (let expert = placed.expertBegin; expert < placed.expertEnd; expert++) {
    const firstRow = expert * matrix.rowsPerExpert + matrix.firstRow
    const target = placed.offset + (expert - placed.expertBegin) * placed.expertBytes
    for (let row = 0; row < matrix.rows; row += rowsPerLoad) {
      const rows = Math.min(rowsPerLoad, matrix.rows - row)
      yield {
        tensor: tensor.name,
        shard: tensor.shard,
        fileOffset: tensor.offset + (firstRow + row) * fileRow,
        fileBytes: rows * fileRow,
        format: format.id,
        columns: matrix.columns,
        rows,
        arena: placed.arena,
        offset: target + packedBytes(format, row, matrix.columns),
        isVector: false,
      }
    }
  }
}

function vectorLoad({ vector, arena, offset }: PlacedVector): Load {
  const { tensor, length } = vector
  const format = FORMATS[tensor.format]
  return {
    tensor: tensor.name,
    shard: tensor.shard,
    fileOffset: tensor.offset,
    fileBytes: rowBytes(format, length),
    format: format.id,
    columns: length,
    rows: 1,
    arena,
    offset,
    isVector: true,
  }
}

const isVector = (placed: PlacedMatrix | PlacedVector): placed is PlacedVector => 'vector' in placed

const ffnWeights = (ffn: PlacedFeedForward | undefined): PlacedMatrix[] => (ffn ? [ffn.gate, ffn.up, ffn.down] : [])

function layerWeights(layer: PlacedLayer): (PlacedMatrix | PlacedVector)[] {
  return [
    ...Object.values(layer.attention),
    layer.ffnNorm,
    ...ffnWeights(layer.dense),
    ...(layer.router ? Object.values(layer.router) : []),
    ...ffnWeights(layer.shared),
    ...layer.routed.flatMap(ffnWeights),
  ]
}

function modelWeights({ embedding, layers, outputNorm, head }: WasmModelPlan): (PlacedMatrix | PlacedVector)[] {
  return [embedding, ...layers.flatMap(layerWeights), outputNorm, ...(head === embedding ? [] : [head])]
}

/** Every load of the pool's part of a plan, in the order of the model's layers. */
export function planLoads(plan: WasmPlan): Load[] {
  const weights = plan.holds === 'model' ? modelWeights(plan) : plan.layers.flatMap(({ routed }) => routed.flatMap(ffnWeights))
  return weights.flatMap((placed) => (isVector(placed) ? [vectorLoad(placed)] : [...matrixLoads(placed)]))
}
