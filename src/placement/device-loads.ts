/** What has to be read to fill a GPU's weight region, cut into pieces that fit an upload's staging bytes. Pure. */
import { FORMATS, rowBytes } from '../abi/formats.ts'
import { vectorSource } from './loads.ts'
import type { CudaPlan, DeviceFeedForward, DeviceLayer, DeviceMatrix, DeviceVector } from './types.ts'

/** Bytes of a piece at most. */
export const UPLOAD_BYTES = 16 * 2 ** 20

/** Bytes of a file that go to the GPU: a matrix's rows as they are, or a vector, which becomes f32 on the way. */
export interface DeviceLoad {
  readonly tensor: string
  readonly shard: number
  readonly fileOffset: number
  readonly fileBytes: number
  /** ggml type id of what is read. */
  readonly format: number
  readonly columns: number
  /** Whole rows; 1 of a vector. */
  readonly rows: number
  /** In the device's weight region. */
  readonly offset: number
  /** Bytes written there: `fileBytes`, or 4 for each of a vector's `columns`. */
  readonly bytes: number
  readonly isVector: boolean
}

/** Matrices of one expert follow each other in the file, unless the tensor holds gate and up merged. */
function* matrixLoads({ matrix, offset, expertBytes }: DeviceMatrix): Generator<DeviceLoad> {
  const { tensor, columns } = matrix
  const fileRow = rowBytes(FORMATS[tensor.format], columns)
  const isMerged = matrix.rowsPerExpert !== matrix.rows
  const rowsPerRun = isMerged ? matrix.rows : matrix.rows * matrix.experts
  const rowsPerLoad = Math.max(1, Math.floor(UPLOAD_BYTES / fileRow))
  for (let run = 0; run < (isMerged ? matrix.experts : 1); run++) {
    const firstRow = run * matrix.rowsPerExpert + matrix.firstRow
    for (let row = 0; row < rowsPerRun; row += rowsPerLoad) {
      const rows = Math.min(rowsPerLoad, rowsPerRun - row)
      yield {
        tensor: tensor.name,
        shard: tensor.shard,
        fileOffset: tensor.offset + (firstRow + row) * fileRow,
        fileBytes: rows * fileRow,
        format: FORMATS[tensor.format].id,
        columns,
        rows,
        offset: offset + run * expertBytes + row * fileRow,
        bytes: rows * fileRow,
        isVector: false,
      }
    }
  }
}

function vectorLoad({ vector, offset }: DeviceVector): DeviceLoad {
  return { ...vectorSource(vector), offset, bytes: vector.length * 4 }
}

function layerWeights(layer: DeviceLayer): (DeviceMatrix | DeviceVector)[] {
  const ffn = (each: DeviceFeedForward | undefined): DeviceMatrix[] => (each ? [each.gate, each.up, each.down] : [])
  return [
    ...Object.values(layer.attention),
    layer.ffnNorm,
    ...ffn(layer.dense),
    ...(layer.router ? Object.values(layer.router) : []),
    ...ffn(layer.shared),
    ...ffn(layer.routed),
  ]
}

/** Every load of a GPU's plan, in the order of the model's layers. */
export function deviceLoads(plan: CudaPlan): DeviceLoad[] {
  const weights: (DeviceMatrix | DeviceVector)[] = [plan.embedding, ...plan.layers.flatMap(layerWeights), plan.outputNorm]
  if (plan.head !== plan.embedding) weights.push(plan.head)
  return weights.flatMap((placed) => ('vector' in placed ? [vectorLoad(placed)] : [...matrixLoads(placed)]))
}
