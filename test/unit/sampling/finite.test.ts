import { expect, test } from 'vitest'
import { areFinite } from '../../../src/sampling/finite.ts'

const MAX = 3.4028234663852886e38

test.each([[[]], [[0, -0, 1, -1]], [[MAX, -MAX, 1e-45, -1e-45, 1.17549435e-38]]])('%j is finite', (values) => {
  expect(areFinite(Float32Array.from(values))).toBe(true)
})

test.each([NaN, -NaN, Infinity, -Infinity])('%d is found wherever it is', (value) => {
  for (let at = 0; at < 5; at++) {
    const values = new Float32Array(5).fill(-1.5)
    values[at] = value
    expect(areFinite(values)).toBe(false)
    // a view that does not begin at its buffer's start
    expect(areFinite(values.subarray(at))).toBe(false)
    expect(areFinite(values.subarray(at + 1))).toBe(true)
  }
})
