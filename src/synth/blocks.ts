/**
 * Turns random bytes into valid blocks of a format whose values have mean zero and a given standard deviation. The quants stay as they
 * fell; only the scales are set. A mean other than zero would add up over the columns of a matrix and drown everything else.
 */
import type { FormatName } from '../abi/formats.ts'
import { toBfloat, toHalf } from './random.ts'

/** Makes blocks, in place, from `bytes` full of random bits: a whole number of blocks, starting at a multiple of 4. */
export type BlockMaker = (bytes: Uint8Array) => void

/** How to make the blocks of each format, given the standard deviation of the values. */
export const BLOCK_MAKERS: Readonly<Record<FormatName, (deviation: number) => BlockMaker>> = {
  F32: (deviation) => (bytes) => {
    const words = wordsOf(bytes)
    const floats = new Float32Array(bytes.buffer, bytes.byteOffset, words.length)
    const scale = (Math.sqrt(3) * deviation) / 2 ** 31
    for (let index = 0; index < floats.length; index += 1) floats[index] = (words[index]! | 0) * scale
  },
  F16: (deviation) => lookup(uniform(deviation).map(toHalf)),
  BF16: (deviation) => lookup(uniform(deviation).map(toBfloat)),
  // y = d (n - 8): the mean is -d / 2, and random signs of d cancel it. 21.5 = mean of (n - 8)^2.
  Q4_0: (deviation) => scaleAt(18, 0, halves(deviation / Math.sqrt(21.5), true)),
  Q5_0: (deviation) => scaleAt(22, 0, halves(deviation / Math.sqrt(85.5), true)),
  Q4_1: (deviation) => blocksWithMinimum(20, deviation, 15),
  Q5_1: (deviation) => blocksWithMinimum(24, deviation, 31),
  IQ4_NL: (deviation) => scaleAt(18, 0, halves(deviation / Math.sqrt(meanSquare(IQ4_NL_VALUES)), true)),
  Q8_0: (deviation) => {
    const setScales = scaleAt(34, 0, halves(deviation / Math.sqrt((2 * sumOfSquares(127)) / 256), false))
    return (bytes) => {
      clearMinus128(wordsOf(bytes))
      setScales(bytes)
    }
  },
  // y = 2^(e - 128) M[n], M symmetric.
  MXFP4: (deviation) => exponentBlocks(17, deviation / Math.sqrt(meanSquare(MXFP4_VALUES))),
  // y = d (s n - m) with n from 0 to 3: scales of 1 to 15 with minima 1.5 times as large on average.
  Q2_K: (deviation) => {
    const setScales = pairOfScales(84, 80, deviation / Math.sqrt(meanSquare(Q2_K_PAIRS.map(([s]) => s)) * 1.25 + Q2_K_SPREAD), 1)
    return (bytes) => {
      for (let block = 0; block < bytes.length; block += 84) {
        for (let at = block; at < block + 16; at += 1) {
          const [s, m] = Q2_K_PAIRS[bytes[at]! & 7]!
          bytes[at] = s | (m << 4)
        }
      }
      setScales(bytes)
    }
  },
  // y = d (s - 32) (n - 4): the mean of n - 4 is -1/2, and random signs of d cancel it. 5.5 = mean of (n - 4)^2. The scales within
  // a block differ already, so those of blocks differ less.
  Q3_K: (deviation) => {
    const setScales = scaleAt(110, 108, halves(deviation / Math.sqrt(SIX_BITS * 5.5), true, 0.25))
    return (bytes) => {
      for (let block = 104; block < bytes.length; block += 110) doubleBits(bytes, block, 4)
      setScales(bytes)
    }
  },
  Q4_K: (deviation) => superBlocks(144, deviation, 15),
  Q5_K: (deviation) => superBlocks(176, deviation, 31),
  Q6_K: (deviation) => {
    // y = d s (n - 32), with |s| from 32 to 63 and a random sign.
    const scales = Array.from({ length: 32 }, (_, index) => 32 + index)
    const setScales = scaleAt(210, 208, halves(deviation / Math.sqrt(meanSquare(scales) * 341.5), false))
    return (bytes) => {
      for (let block = 192; block < bytes.length; block += 210) {
        for (let at = block; at < block + 16; at += 1) {
          const random = bytes[at]!
          const scale = 32 + (random & 31)
          bytes[at] = (random & 0x80) === 0 ? scale : -scale
        }
      }
      setScales(bytes)
    }
  },
  // y = d (s - 32) T[n]: as in Q3_K.
  IQ4_XS: (deviation) => {
    const setScales = scaleAt(136, 0, halves(deviation / Math.sqrt(SIX_BITS * meanSquare(IQ4_NL_VALUES)), true, 0.25))
    return (bytes) => {
      for (let block = 2; block < bytes.length; block += 136) doubleBits(bytes, block, 2)
      setScales(bytes)
    }
  },
}

/** Mean square of s - 32 for six bits s whose two top bits are alike: -32 to -17 and 16 to 31. */
const SIX_BITS = (sumOfSquares(31) - sumOfSquares(15) + sumOfSquares(32) - sumOfSquares(16)) / 32

const MXFP4_VALUES = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12]

/** Scales and minima of Q2_K; even scales have the minimum that makes the mean zero, odd ones are half too low or too high in turn. */
const Q2_K_PAIRS: readonly (readonly [number, number])[] = [
  [4, 6],
  [5, 7],
  [5, 8],
  [6, 9],
  [7, 10],
  [7, 11],
  [8, 12],
  [10, 15],
]
const Q2_K_SPREAD = meanSquare(Q2_K_PAIRS.map(([s, m]) => 1.5 * s - m))

const IQ4_NL_VALUES = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]

/** Entries of a table of scales, or of values. Powers of two, so that random bits are an index. */
const SCALES = 128
const VALUES = 4096
const PACKED_SCALES = 256

/** Evenly spaced values from -sqrt(3) to sqrt(3) deviations: mean zero, the standard deviation as asked. */
function uniform(deviation: number): number[] {
  const step = (2 * Math.sqrt(3) * deviation) / VALUES
  return Array.from({ length: VALUES }, (_, index) => (index + 0.5 - VALUES / 2) * step)
}

/** Replaces every random 16-bit word by an entry of a table. */
function lookup(table: readonly number[]): BlockMaker {
  const values = Uint16Array.from(table)
  return (bytes) => {
    const words = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2)
    for (let index = 0; index < words.length; index += 1) words[index] = values[words[index]! & (VALUES - 1)]!
  }
}

/** Half-precision scales from 1 - spread/2 to 1 + spread/2 of a middle, with the root mean square `rms`; of both signs when `signed`. */
function halves(rms: number, signed: boolean, spread = 0.5): Uint16Array {
  const factors = Array.from({ length: SCALES }, (_, index) => {
    const factor = 1 + (((index >> 1) + 0.5) / (SCALES / 2) - 0.5) * spread
    return signed && index % 2 === 1 ? -factor : factor
  })
  const middle = rms / Math.sqrt(meanSquare(factors))
  return Uint16Array.from(factors, (factor) => toHalf(factor * middle))
}

/** Replaces two random bytes of each block by a scale from the table. */
function scaleAt(blockBytes: number, offset: number, scales: Uint16Array): BlockMaker {
  return (bytes) => {
    for (let at = offset; at < bytes.length; at += blockBytes) {
      const scale = scales[bytes[at]! & (SCALES - 1)]!
      bytes[at] = scale
      bytes[at + 1] = scale >> 8
    }
  }
}

/** Makes the bits of every pair of bits alike: those are the top bits of scales, which then are neither small nor all of one sign. */
function doubleBits(bytes: Uint8Array, offset: number, count: number): void {
  for (let at = offset; at < offset + count; at += 1) bytes[at] = (bytes[at]! & 0x55) * 3
}

/** Two random bytes become a scale from a table, the two behind it `ratio` times that scale. */
function pairOfScales(blockBytes: number, offset: number, rms: number, ratio: number, signed = false): BlockMaker {
  const scales = halves(rms, signed)
  const others = scales.map((scale) => toHalf(fromHalf(scale) * ratio))
  return (bytes) => {
    for (let at = offset; at < bytes.length; at += blockBytes) {
      const index = bytes[at]! & (SCALES - 1)
      bytes[at] = scales[index]!
      bytes[at + 1] = scales[index]! >> 8
      bytes[at + 2] = others[index]!
      bytes[at + 3] = others[index]! >> 8
    }
  }
}

/** Q4_1 and Q5_1: y = d n + m with m = -d most/2, n from 0 to `most`: the mean is zero in every block. */
function blocksWithMinimum(blockBytes: number, deviation: number, most: number): BlockMaker {
  return pairOfScales(blockBytes, 0, deviation / Math.sqrt(((most + 1) ** 2 - 1) / 12), -most / 2, true)
}

/** Blocks that begin with an exponent: one of the two powers of two around `rms`, in the shares that give it. */
function exponentBlocks(blockBytes: number, rms: number): BlockMaker {
  const below = Math.floor(Math.log2(rms))
  const share = ((rms / 2 ** below) ** 2 - 1) / 3
  return (bytes) => {
    for (let at = 0; at < bytes.length; at += blockBytes) {
      const isLarge = (bytes[at]! + 0.5) / 256 < share
      bytes[at] = 128 + below + (isLarge ? 1 : 0)
    }
  }
}

/**
 * Q4_K and Q5_K: y = d s n - dmin m, eight (s, m) per block, n from 0 to `most`. With dmin = d most/2 and m equal to s on average, the
 * mean is zero; m differs from s by up to 3, so that a kernel that mixes the two up is noticed.
 */
function superBlocks(blockBytes: number, deviation: number, most: number): BlockMaker {
  const table = new Uint8Array(PACKED_SCALES * 12)
  const squares: number[] = []
  for (let entry = 0; entry < PACKED_SCALES; entry += 1) {
    const s = Array.from({ length: 8 }, (_, index) => 24 + ((entry * 11 + index * 17) % 36))
    const m = s.map((scale, index) => scale + ((entry + index * 5) % 7) - 3)
    for (let index = 0; index < 8; index += 1) {
      squares.push(s[index]! ** 2 * (((most + 1) ** 2 - 1) / 12) + ((s[index]! - m[index]!) * (most / 2)) ** 2)
    }
    table.set(packScales(s, m), entry * 12)
  }
  const rms = deviation / Math.sqrt(squares.reduce((sum, square) => sum + square, 0) / squares.length)
  const scales = halves(rms, false)
  const mins = scales.map((scale) => toHalf(fromHalf(scale) * (most / 2)))
  return (bytes) => {
    for (let at = 0; at < bytes.length; at += blockBytes) {
      const index = bytes[at]! & (SCALES - 1)
      const entry = bytes[at + 4]! * 12
      bytes[at] = scales[index]!
      bytes[at + 1] = scales[index]! >> 8
      bytes[at + 2] = mins[index]!
      bytes[at + 3] = mins[index]! >> 8
      for (let byte = 0; byte < 12; byte += 1) bytes[at + 4 + byte] = table[entry + byte]!
    }
  }
}

/** Eight 6-bit scales and eight 6-bit minima in 12 bytes, as Q4_K and Q5_K store them. */
function packScales(s: readonly number[], m: readonly number[]): Uint8Array {
  const packed = new Uint8Array(12)
  for (let index = 0; index < 4; index += 1) {
    packed[index] = s[index]! | ((s[index + 4]! >> 4) << 6)
    packed[index + 4] = m[index]! | ((m[index + 4]! >> 4) << 6)
    packed[index + 8] = (s[index + 4]! & 15) | ((m[index + 4]! & 15) << 4)
  }
  return packed
}

/** A finite half-precision number. */
function fromHalf(bits: number): number {
  const sign = bits < 0x8000 ? 1 : -1
  const exponent = (bits >> 10) & 31
  return sign * (exponent === 0 ? (bits & 1023) * 2 ** -24 : (1024 + (bits & 1023)) * 2 ** (exponent - 25))
}

/** Bytes of -128, which no quantiser writes, become 0; that also makes the mean zero. */
function clearMinus128(words: Uint32Array): void {
  for (let index = 0; index < words.length; index += 1) {
    const flipped = words[index]! ^ 0x80808080
    // A byte of `flipped` is zero (the usual bit trick; it may also fire for a byte above a zero byte, which the loop sorts out).
    if (((flipped - 0x01010101) & ~flipped & 0x80808080) === 0) continue
    for (let shift = 0; shift < 32; shift += 8) {
      if (((words[index]! >>> shift) & 0xff) === 0x80) words[index] = words[index]! & ~(0xff << shift)
    }
  }
}

function wordsOf(bytes: Uint8Array): Uint32Array {
  return new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2)
}

function meanSquare(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value * value, 0) / values.length
}

/** 1 + 4 + 9 + ... + n^2 */
function sumOfSquares(n: number): number {
  return (n * (n + 1) * (2 * n + 1)) / 6
}
