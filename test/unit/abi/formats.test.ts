/** The format table against its C twin and its page, and the sizes that follow from it. */
import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { ACTIVATION, formatById, FORMATS, KNOWN_UNSUPPORTED_FORMATS, packedBytes, PANEL_ROWS, rowBytes } from '../../../src/abi/formats.ts'
import { recordBytes } from '../../../src/abi/kernels.ts'

describe('formats.ts and wasm/formats.h', () => {
  const header = readFileSync(new URL('../../../wasm/formats.h', import.meta.url), 'utf8')

  test('have the same rows', () => {
    const rows = [...header.matchAll(/^ {2}X\((\w+), (\d+), (\d+), (\d+), (\d+), (\d+), ACTIVATION_(\w+)\)/gm)].map((match) => ({
      name: match[1],
      id: Number(match[2]),
      blockElements: Number(match[3]),
      blockBytes: Number(match[4]),
      panelBytes: Number(match[5]),
      tailBytes: Number(match[6]),
      activation: match[7]!.toLowerCase(),
    }))
    expect(rows).toEqual(Object.values(FORMATS))
  })

  test('have the same activations', () => {
    const ids = [...header.matchAll(/\bACTIVATION_(\w+) = (\d+)/g)].map((match) => [match[1]!.toLowerCase(), Number(match[2])])
    expect(Object.fromEntries(ids)).toEqual(ACTIVATION)
  })
})

describe('the table', () => {
  test('is the one in docs/formats.md', () => {
    const page = readFileSync(new URL('../../../docs/formats.md', import.meta.url), 'utf8')
    const rows = [...page.matchAll(/^\| (\w+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\w+) \|/gm)].map((match) => match.slice(1))
    const expected = Object.values(FORMATS).map((f) =>
      [f.name, f.id, f.blockElements, f.blockBytes, f.panelBytes, f.tailBytes, f.activation].map(String),
    )
    expect(rows).toEqual(expected)
  })

  test('finds formats by id and names the ones it lacks', () => {
    for (const format of Object.values(FORMATS)) expect(formatById(format.id)).toBe(format)
    expect(formatById(9)).toBeUndefined()
    for (const id of KNOWN_UNSUPPORTED_FORMATS.keys()) expect(formatById(id)).toBeUndefined()
  })

  test('never makes a matrix more than 3 % larger than the file', () => {
    for (const format of Object.values(FORMATS)) {
      expect(format.panelBytes, format.name).toBeGreaterThanOrEqual(PANEL_ROWS * format.blockBytes)
      expect(format.panelBytes / (PANEL_ROWS * format.blockBytes), format.name).toBeLessThan(1.03)
    }
  })

  test('gives sizes', () => {
    expect(rowBytes(FORMATS.Q4_0, 1408)).toBe(792)
    expect(packedBytes(FORMATS.Q4_0, 13, 1408)).toBe(2 * 44 * 144)
    expect(packedBytes(FORMATS.F32, 8, 5)).toBe(160)
    expect(recordBytes('f32', 7)).toBe(28)
    expect(recordBytes('q8x32', 64)).toBe(80)
    expect(recordBytes('q8x256', 512)).toBe(648)
    expect(recordBytes('q16x32', 64)).toBe(160)
    expect(recordBytes('q16x256', 512)).toBe(1296)
  })
})
