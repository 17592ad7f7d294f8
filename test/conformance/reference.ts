/**
 * The slow and obvious side of the conformance suite: blocks decoded from the file's bytes in float64, after the formulas of ggml's
 * `ggml-common.h` and `ggml-quants.c`, and random data to run them on.
 */
import { FORMATS, rowBytes, type FormatName } from '../../src/abi/formats.ts'

/** A small seeded generator (mulberry32), uniform in [0, 1). */
export function random(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

/** f32 values, roughly normal, a few of them large. */
export function randomRows(count: number, seed: number, size = 1): Float32Array {
  const next = random(seed)
  return Float32Array.from({ length: count }, () => {
    const bell = next() + next() + next() + next() - 2
    return size * bell * (next() < 0.01 ? 8 : 1)
  })
}

/** The value of f16 bits. */
export function f16Value(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1
  const exponent = (bits >> 10) & 31
  const mantissa = bits & 1023
  if (exponent === 31) return mantissa === 0 ? sign * Infinity : NaN
  return exponent === 0 ? sign * mantissa * 2 ** -24 : sign * (1 + mantissa / 1024) * 2 ** (exponent - 15)
}

/** The f16 bits nearest to a value, ties to even. */
export function f16Bits(value: number): number {
  if (Number.isNaN(value)) return 0x7e00
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0
  const size = Math.abs(value)
  if (size >= 65520) return sign | 0x7c00
  const exponent = Math.max(-14, Math.floor(Math.log2(size)))
  const unit = 2 ** (exponent - 10)
  const steps = size / unit
  const down = Math.floor(steps)
  const rest = steps - down
  const rounded = rest > 0.5 || (rest === 0.5 && down % 2 === 1) ? down + 1 : down
  // `rounded` counts units of the exponent's ulp: with the exponent's offset it is the bit pattern, carries included
  return sign | (rounded + (size < 2 ** -14 ? 0 : (exponent + 14) * 1024))
}

interface Codec {
  /** Decodes element k of a block. */
  readonly element: (block: DataView, k: number) => number
  /** Byte offsets of f16 scales, for random data. */
  readonly scales: readonly number[]
  /** Whether the block begins with a scale that is an exponent of eight bits (E8M0). */
  readonly hasExponent?: boolean
}

const f16At = (block: DataView, at: number): number => f16Value(block.getUint16(at, true))
const nibble32 = (block: DataView, at: number, k: number): number =>
  k < 16 ? block.getUint8(at + k) & 15 : block.getUint8(at + k - 16) >> 4
const IQ4_NL_VALUES = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]

const MXFP4_VALUES = [0, 1, 2, 3, 4, 6, 8, 12, -0, -1, -2, -3, -4, -6, -8, -12]
const twoBits = (block: DataView, at: number, k: number): number =>
  (block.getUint8(at + (k >> 7) * 32 + (k % 32)) >> (2 * ((k % 128) >> 5))) & 3

/** Scale and minimum of sub-block j out of the 12 bytes at 4. */
function scaleAndMinimum(block: DataView, j: number): [number, number] {
  const s = (i: number): number => block.getUint8(4 + i)
  if (j < 4) return [s(j) & 63, s(j + 4) & 63]
  return [(s(j + 4) & 15) | ((s(j - 4) >> 6) << 4), (s(j + 4) >> 4) | ((s(j) >> 6) << 4)]
}

function kElement(block: DataView, k: number, nibbles: number, fifth: number): number {
  const sub = Math.floor(k / 32)
  const byte = block.getUint8(nibbles + (sub >> 1) * 32 + (k % 32))
  const quant = (sub & 1 ? byte >> 4 : byte & 15) + fifth
  const [scale, minimum] = scaleAndMinimum(block, sub)
  return f16At(block, 0) * scale * quant - f16At(block, 2) * minimum
}

const CODECS: Record<FormatName, Codec> = {
  F32: { element: (block) => block.getFloat32(0, true), scales: [] },
  F16: { element: (block) => f16At(block, 0), scales: [] },
  BF16: {
    element: (block) => new Float32Array(new Uint32Array([block.getUint16(0, true) << 16]).buffer)[0]!,
    scales: [],
  },
  Q4_0: { element: (block, k) => f16At(block, 0) * (nibble32(block, 2, k) - 8), scales: [0] },
  Q5_0: {
    element: (block, k) => f16At(block, 0) * ((nibble32(block, 6, k) | (((block.getUint32(2, true) >>> k) & 1) << 4)) - 16),
    scales: [0],
  },
  Q4_1: { element: (block, k) => f16At(block, 0) * nibble32(block, 4, k) + f16At(block, 2), scales: [0, 2] },
  Q5_1: {
    element: (block, k) => f16At(block, 0) * (nibble32(block, 8, k) | (((block.getUint32(4, true) >>> k) & 1) << 4)) + f16At(block, 2),
    scales: [0, 2],
  },
  Q8_0: { element: (block, k) => f16At(block, 0) * block.getInt8(2 + k), scales: [0] },
  IQ4_NL: { element: (block, k) => f16At(block, 0) * IQ4_NL_VALUES[nibble32(block, 2, k)]!, scales: [0] },
  MXFP4: {
    element: (block, k) => 2 ** (block.getUint8(0) - 128) * MXFP4_VALUES[nibble32(block, 1, k)]!,
    scales: [],
    hasExponent: true,
  },
  Q2_K: {
    element(block, k) {
      const scale = block.getUint8(k >> 4)
      return f16At(block, 80) * (scale & 15) * twoBits(block, 16, k) - f16At(block, 82) * (scale >> 4)
    },
    scales: [80, 82],
  },
  Q3_K: {
    element(block, k) {
      const sub = k >> 4
      const low = block.getUint8(96 + (sub % 8)) >> (sub < 8 ? 0 : 4)
      const top = block.getUint8(104 + (sub % 4)) >> (2 * (sub >> 2))
      const isHigh = (block.getUint8(k % 32) >> (k >> 5)) & 1
      return f16At(block, 108) * (((low & 15) | ((top & 3) << 4)) - 32) * (twoBits(block, 32, k) - (isHigh ? 0 : 4))
    },
    scales: [108],
  },
  Q4_K: { element: (block, k) => kElement(block, k, 16, 0), scales: [0, 2] },
  Q5_K: {
    element: (block, k) => kElement(block, k, 48, ((block.getUint8(16 + (k % 32)) >> Math.floor(k / 32)) & 1) * 16),
    scales: [0, 2],
  },
  Q6_K: {
    element(block, k) {
      const half = k >> 7
      const l = k % 32
      const quarter = (k % 128) >> 5
      const low = (block.getUint8(half * 64 + (quarter % 2) * 32 + l) >> (quarter >= 2 ? 4 : 0)) & 15
      const top = (block.getUint8(128 + half * 32 + l) >> (2 * quarter)) & 3
      const scale = block.getInt8(192 + half * 8 + 2 * quarter + (l >> 4))
      return f16At(block, 208) * scale * ((low | (top << 4)) - 32)
    },
    scales: [208],
  },
  IQ4_XS: {
    element(block, k) {
      const sub = k >> 5
      const low = (block.getUint8(4 + (sub >> 1)) >> (4 * (sub % 2))) & 15
      const top = (block.getUint16(2, true) >> (2 * sub)) & 3
      return f16At(block, 0) * ((low | (top << 4)) - 32) * IQ4_NL_VALUES[nibble32(block, 8 + 16 * sub, k % 32)]!
    },
    scales: [0],
  },
}

/** Where a format's f16 scales are in a block; empty for float formats. */
export function scaleOffsets(name: FormatName): readonly number[] {
  return CODECS[name].scales
}

/** Whether a format's scale is one byte of exponent, at the beginning of its blocks. */
export function hasExponent(name: FormatName): boolean {
  return CODECS[name].hasExponent ?? false
}

/** Decodes one row of a file exactly. */
export function decodeRow(name: FormatName, row: Uint8Array, columns: number): Float64Array {
  const { blockElements, blockBytes } = FORMATS[name]
  const view = new DataView(row.buffer, row.byteOffset, row.byteLength)
  const decoded = new Float64Array(columns)
  for (let block = 0; block * blockElements < columns; block++) {
    const part = new DataView(view.buffer, view.byteOffset + block * blockBytes, blockBytes)
    for (let k = 0; k < blockElements; k++) decoded[block * blockElements + k] = CODECS[name].element(part, k)
  }
  return decoded
}

/** A random matrix as a file has it: any bits for quants, finite scales of either sign, some of them zero or subnormal. */
export function randomWeights(name: FormatName, rows: number, columns: number, seed: number): Uint8Array {
  const format = FORMATS[name]
  const bytes = new Uint8Array(rows * rowBytes(format, columns))
  const view = new DataView(bytes.buffer)
  const next = random(seed)
  if (name === 'F32') new Float32Array(bytes.buffer).set(randomRows(rows * columns, seed))
  else if (name === 'F16') {
    for (let i = 0; i < rows * columns; i++) view.setUint16(2 * i, f16Bits((next() - 0.5) * 10 ** -Math.floor(next() * 7)), true)
  } else if (name === 'BF16') {
    const values = new Uint32Array(randomRows(rows * columns, seed).buffer)
    for (let i = 0; i < values.length; i++) view.setUint16(2 * i, values[i]! >>> 16, true)
  } else {
    for (let i = 0; i < bytes.length; i++) bytes[i] = Math.floor(next() * 256)
    for (let block = 0; block < bytes.length; block += format.blockBytes) {
      for (const offset of scaleOffsets(name)) {
        const kind = next()
        const scale = kind < 0.02 ? 0 : kind < 0.1 ? next() * 5e-5 : (0.5 + next()) * 0.01
        view.setUint16(block + offset, f16Bits(next() < 0.5 ? -scale : scale), true)
      }
      // 2^-9 to 2^-2 as real files have, and now and then the smallest, which are subnormal f32
      if (hasExponent(name)) bytes[block] = next() < 0.02 ? Math.floor(next() * 3) : 119 + Math.floor(next() * 8)
    }
  }
  return bytes
}

/** Normalised mean squared error: the squares of the differences over the squares of the expected values. */
export function nmse(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  let error = 0
  let power = 0
  for (let i = 0; i < expected.length; i++) {
    error += (actual[i]! - expected[i]!) ** 2
    power += expected[i]! ** 2
  }
  return power === 0 ? (error === 0 ? 0 : Infinity) : error / power
}

/** f64 dot product. */
export function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!
  return sum
}
