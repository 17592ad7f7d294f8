/** What has to be read to fill the arenas, cut into pieces that fit a worker's staging bytes. Pure. */
import { FORMATS, packedBytes, PANEL_ROWS, rowBytes } from '../abi/formats.ts'
import type { Matrix, Vector } from '../model/types.ts'
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

/** Some rows of one expert's matrix: where they are in the file, and where among the packed bytes of a range of experts they go. */
export interface Piece {
  readonly fileOffset: number
  readonly fileBytes: number
  readonly rows: number
  readonly packedOffset: number
}

/** The experts [begin, end) of a matrix, cut into pieces. */
export function* matrixPieces(matrix: Matrix, begin = 0, end = matrix.experts): Generator<Piece> {
  const { tensor, rows, columns, rowsPerExpert, firstRow } = matrix
  const format = FORMATS[tensor.format]
  const fileRow = rowBytes(format, columns)
  const rowsPerPiece = Math.max(1, Math.floor(STAGING_BYTES / fileRow / PANEL_ROWS)) * PANEL_ROWS
  const expertBytes = packedBytes(format, rows, columns)
  for (let expert = begin; expert < end; expert++) {
    const tensorRow = expert * rowsPerExpert + firstRow
    for (let row = 0; row < rows; row += rowsPerPiece) {
      const count = Math.min(rowsPerPiece, rows - row)
      yield {
        fileOffset: tensor.offset + (tensorRow + row) * fileRow,
        fileBytes: count * fileRow,
        rows: count,
        packedOffset: (expert - begin) * expertBytes + packedBytes(format, row, columns),
      }
    }
  }
}

function* matrixLoads({ matrix, arena, offset, expertBegin, expertEnd }: PlacedMatrix): Generator<Load> {
  const { tensor, columns } = matrix
  for (const { packedOffset, ...piece } of matrixPieces(matrix, expertBegin, expertEnd)) {
    yield {
      ...piece,
      tensor: tensor.name,
      shard: tensor.shard,
      format: FORMATS[tensor.format].id,
      columns,
      arena,
      offset: offset + packedOffset,
      isVector: false,
    }
  }
}

/** Where a vector lies in the file; it is read in one piece. */
export function vectorSource({ tensor, length }: Vector): Omit<Load, 'arena' | 'offset'> {
  const format = FORMATS[tensor.format]
  return {
    tensor: tensor.name,
    shard: tensor.shard,
    fileOffset: tensor.offset,
    fileBytes: rowBytes(format, length),
    format: format.id,
    columns: length,
    rows: 1,
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

const weightsOf = (plan: WasmPlan): (PlacedMatrix | PlacedVector)[] =>
  plan.holds === 'model' ? modelWeights(plan) : plan.layers.flatMap(({ routed }) => routed.flatMap(ffnWeights))

/** Every matrix of the pool's part of a plan, in the order of the model's layers. */
export const placedMatrices = (plan: WasmPlan): PlacedMatrix[] =>
  weightsOf(plan).filter((placed): placed is PlacedMatrix => !isVector(placed))

/** Every load of the pool's part of a plan, in the same order, but for matrices that are `elsewhere` than in the model's files. */
export function planLoads(plan: WasmPlan, elsewhere: ReadonlySet<PlacedMatrix> = new Set()): Load[] {
  return weightsOf(plan).flatMap((placed) => {
    if (isVector(placed)) return [{ ...vectorSource(placed.vector), arena: placed.arena, offset: placed.offset }]
    return elsewhere.has(placed) ? [] : [...matrixLoads(placed)]
  })
}
