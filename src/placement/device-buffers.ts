/** The memory that an engine on a GPU takes for itself: the twin of cuda/buffers.cu, which says what each buffer is for. Pure. */
import type { DeviceShape } from './types.ts'

/** Every buffer begins at a multiple of this. */
const ALIGN = 256

/** Columns of a quantised row that share a scale and a sum. */
const GROUP = 16

/** Blocks of attention's grid in decode, cuda/attention_parts.h. */
const DECODE_BLOCKS = 2048

/** Vectors of the smallest tile that the routed experts are computed in, cuda/buffers.h. */
const LEAST_TILE_VECTORS = 64

/** Keys that one block of the head finds the best of, in the first pass and in later ones: cuda/buffers.h. */
const FIRST_SLICE = 2048
const LATER_SLICE = 8192

/** Words that the kernels count in. */
const COUNTERS = 64

const F32 = 4
const I32 = 4
const F64 = 8
const U64 = 8

/** Bytes of rows in every form that some weight may want of them: f32, and twice 8-bit values with scales and sums, for each digit. */
function activationBytes(rows: number, columns: number, digits: number): number[] {
  const groups = digits * rows * Math.ceil(columns / GROUP)
  const quantized = [digits * rows * columns, groups * F32, groups * F32]
  return [rows * columns * F32, ...quantized, ...quantized]
}

/** Floats of attention's partial results in decode. */
function attentionPartFloats({ sequences, heads, kvHeads, headDim }: DeviceShape): number {
  return Math.max(sequences * heads, DECODE_BLOCKS * (heads / kvHeads)) * (headDim + 2)
}

function stepBytes({ ubatch, outputs, sequences, blocksPerSequence, rotary }: DeviceShape): number[] {
  const tokens = ubatch * I32
  const blockTables = sequences * blocksPerSequence * I32
  return [tokens, tokens, tokens, outputs * I32, sequences * 4 * I32, tokens, blockTables, ubatch * rotary * F32, (rotary / 2) * F64]
}

/** What the routed experts' grouping of pairs takes where they run on the device. */
function groupBytes({ experts, deviceExperts, digits }: DeviceShape, pairs: number): number[] {
  if (!deviceExperts) return []
  // every expert may leave a tile that is not full
  const tiles = 1 + 2 * (Math.floor(pairs / (LEAST_TILE_VECTORS / digits)) + experts)
  return [(experts + 1) * I32, pairs * I32, pairs * I32, pairs * F32, tiles * I32]
}

/** Bytes of the buffers of an engine of this shape, as `tcu_buffer_bytes` counts them. */
export function deviceBufferBytes(shape: DeviceShape): number {
  const { hidden, heads, kvHeads, headDim, vocabulary, ubatch, outputs, experts, expertsUsed, ffn, ffnExpert, deviceExperts, top, digits } =
    shape
  const pairs = deviceExperts ? ubatch * expertsUsed : 0
  const rows = Math.max(ubatch * ffn, pairs * ffnExpert)
  const firstBest = Math.ceil(vocabulary / FIRST_SLICE) * top
  const secondBest = Math.ceil(firstBest / LATER_SLICE) * top
  const buffers = [
    ...stepBytes(shape),
    ubatch * hidden * F32,
    ...activationBytes(Math.max(ubatch, outputs), hidden, digits),
    ubatch * (heads + 2 * kvHeads) * headDim * F32,
    ...activationBytes(ubatch, heads * headDim, digits),
    attentionPartFloats(shape) * F32,
    ubatch * experts * F32,
    ubatch * expertsUsed * I32,
    ubatch * expertsUsed * F32,
    Math.max(ubatch * 2 * ffn, pairs * Math.max(2 * ffnExpert, hidden)) * F32,
    ...activationBytes(1, rows, digits),
    ubatch * hidden * F32,
    deviceExperts ? ubatch * hidden * F32 : 0,
    ...groupBytes(shape, pairs),
    outputs * vocabulary * F32,
    outputs * firstBest * U64,
    outputs * secondBest * U64,
    COUNTERS * I32,
  ]
  return buffers.reduce((sum, bytes) => sum + Math.ceil(bytes / ALIGN) * ALIGN, 0)
}
