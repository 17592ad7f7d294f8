/** Reads vectors of weights (norms, biases), which stay f32 in memory. */
import { FORMATS } from '../abi/formats.ts'
import { TandemError } from '../errors.ts'

/** The value of an IEEE half. */
function half(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1
  const exponent = (bits >> 10) & 31
  const mantissa = bits & 1023
  if (exponent === 31) return mantissa === 0 ? sign * Infinity : Number.NaN
  return exponent === 0 ? sign * mantissa * 2 ** -24 : sign * (1 + mantissa / 1024) * 2 ** (exponent - 15)
}

const wide = new DataView(new ArrayBuffer(4))

/** The value of a bfloat16: the upper half of an f32. */
function brain(bits: number): number {
  wide.setUint32(0, bits << 16)
  return wide.getFloat32(0)
}

/** f32[length] from the file's bytes, which are little-endian. Throws `ERR_FORMAT_UNSUPPORTED` for quantised formats. */
export function toFloat32(format: number, raw: Uint8Array, length: number): Float32Array {
  const view = new DataView(raw.buffer, raw.byteOffset, raw.byteLength)
  const read = new Map<number, (index: number) => number>([
    [FORMATS.F32.id, (index) => view.getFloat32(index * 4, true)],
    [FORMATS.F16.id, (index) => half(view.getUint16(index * 2, true))],
    [FORMATS.BF16.id, (index) => brain(view.getUint16(index * 2, true))],
  ]).get(format)
  if (!read) throw new TandemError('ERR_FORMAT_UNSUPPORTED', `a norm or bias has the quantised format ${format}`)
  return Float32Array.from({ length }, (_, index) => read(index))
}
