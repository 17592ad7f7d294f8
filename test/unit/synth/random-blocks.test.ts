import { createHash } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { FORMATS } from '../../../src/abi/formats.ts'
import type { FormatName } from '../../../src/abi/formats.ts'
import { BLOCK_MAKERS } from '../../../src/synth/blocks.ts'
import { fillRandom, toBfloat, toHalf } from '../../../src/synth/random.ts'
import { dequantize, half } from '../../fixtures/dequantize.ts'

const ELEMENTS = 256 * 1024
const DEVIATION = 1 / 64

function makeBlocks(format: FormatName, deviation: number): Uint8Array {
  const { blockElements, blockBytes } = FORMATS[format]
  const bytes = (ELEMENTS / blockElements) * blockBytes
  const words = new Uint32Array(Math.ceil(bytes / 4))
  fillRandom(words, `test ${format}`)
  const blocks = new Uint8Array(words.buffer, 0, bytes)
  BLOCK_MAKERS[format](deviation)(blocks)
  return blocks
}

/** SHA-256 of the blocks, 12 digits: what "the same bytes on every machine" means. */
const DIGESTS: Readonly<Record<FormatName, string>> = {
  F32: 'a40d981922a2',
  F16: '018f4eeb881f',
  BF16: 'cf8484c79de6',
  Q4_0: 'f9924a20e708',
  Q4_1: 'c0177408914b',
  Q5_0: 'c2ea93b82bf0',
  Q5_1: 'fe8f0afc25cd',
  Q8_0: '17681a2661b1',
  IQ4_NL: 'bfe24a59cb5f',
  MXFP4: 'ad12a0e2d1fd',
  Q2_K: '055661cb84fa',
  Q3_K: '889be0b244fc',
  Q4_K: 'a6ddb221f03f',
  Q5_K: '550b5c6f2331',
  Q6_K: '2e7ad757e3cd',
  IQ4_XS: 'dc571cbc52a5',
}

describe.each(Object.keys(FORMATS) as FormatName[])('%s', (format) => {
  test('values are finite, with mean zero and the standard deviation asked for', () => {
    const values = dequantize(format, makeBlocks(format, DEVIATION))
    const mean = values.reduce((sum, value) => sum + value, 0) / ELEMENTS
    const deviation = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / ELEMENTS)
    expect(values.every(Number.isFinite)).toBe(true)
    // Six standard errors of the mean of independent values; signs per block make them a little dependent.
    expect(Math.abs(mean) / DEVIATION).toBeLessThan(6 / Math.sqrt(ELEMENTS))
    expect(deviation / DEVIATION).toBeGreaterThan(0.99)
    expect(deviation / DEVIATION).toBeLessThan(1.01)
  })

  test('rows do not repeat each other', () => {
    const values = dequantize(format, makeBlocks(format, DEVIATION))
    const lag = 2048
    let product = 0
    for (let index = lag; index < ELEMENTS; index += 1) product += values[index]! * values[index - lag]!
    expect(Math.abs(product) / ELEMENTS / DEVIATION ** 2).toBeLessThan(6 / Math.sqrt(ELEMENTS))
  })

  test('bytes are the same on every machine', () => {
    expect(createHash('sha256').update(makeBlocks(format, DEVIATION)).digest('hex').slice(0, 12)).toBe(DIGESTS[format])
  })
})

test('Q8_0 has no -128, which quantisers do not write', () => {
  const blocks = makeBlocks('Q8_0', 1)
  for (let at = 0; at < blocks.length; at += 34) expect(blocks.subarray(at + 2, at + 34).includes(0x80)).toBe(false)
})

test('halves are rounded to the nearest, ties to even', () => {
  const view = new DataView(new ArrayBuffer(2))
  const valueOf = (bits: number): number => {
    view.setUint16(0, bits, true)
    return half(view, 0)
  }
  const wrong = Array.from({ length: 0x7c00 }, (_, bits) => bits).filter((bits) => {
    const value = valueOf(bits)
    const middle = bits + 1 === 0x7c00 ? 65_520 : (value + valueOf(bits + 1)) / 2
    return toHalf(value) !== bits || toHalf(-value) !== (bits | 0x8000) || toHalf(middle) !== bits + (bits & 1)
  })
  expect(wrong).toEqual([])
  expect([toHalf(Infinity), toHalf(-Infinity), toHalf(NaN) & 0x7fff, toHalf(1e9), toHalf(1e-9)]).toEqual([
    0x7c00, 0xfc00, 0x7e00, 0x7c00, 0,
  ])
})

test('bfloats are rounded to the nearest, ties to even', () => {
  expect([1, 1 + 2 ** -8, 1 + 3 * 2 ** -8, -2].map(toBfloat)).toEqual([0x3f80, 0x3f80, 0x3f82, 0xc000])
})
