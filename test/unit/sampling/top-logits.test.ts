import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { logSoftmaxAt } from '../../../src/sampling/log-softmax.ts'
import { bestToken, topLogits } from '../../../src/sampling/top-logits.ts'

const logit = fc.oneof(fc.float({ noNaN: true, noDefaultInfinity: true }), fc.integer({ min: -3, max: 3 }), fc.constant(-Infinity))
const someLogits = fc.array(logit, { maxLength: 80 }).map((values) => Float32Array.from(values))

describe('topLogits', () => {
  it('is the front of a full sort, equals by id', () => {
    fc.assert(
      fc.property(someLogits, fc.nat(100), (logits, n) => {
        const sorted = [...logits.entries()].filter(([, value]) => value > -Infinity).sort(([a, x], [b, y]) => y - x || a - b)
        expect(topLogits(logits, n)).toEqual(sorted.slice(0, n))
        expect(bestToken(logits)).toBe(sorted[0]?.[0] ?? -1)
      }),
      { numRuns: 500 },
    )
  })

  it('refuses NaN and +Infinity wherever they are, and a bad n', () => {
    for (const bad of [Number.NaN, Infinity]) {
      for (const logits of [
        [bad, 1, 2],
        [1, bad, 2],
        [2, 1, bad],
        [bad, bad],
      ]) {
        const given = Float32Array.from(logits)
        for (const action of [() => topLogits(given, 1), () => topLogits(given, 0), () => bestToken(given), () => logSoftmaxAt(given, 0)]) {
          expect(action).toThrow(expect.objectContaining({ code: 'ERR_NOT_FINITE' }))
        }
      }
    }
    for (const n of [-1, 1.5, Number.NaN])
      expect(() => topLogits(Float32Array.of(1), n)).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }))
  })
})

describe('logSoftmaxAt', () => {
  it('is the logarithm of a probability, and they add up to one', () => {
    const logits = Float32Array.of(1, 2, 3, -Infinity)
    const total = Math.exp(1) + Math.exp(2) + Math.exp(3)
    expect(logSoftmaxAt(logits, 0)).toBeCloseTo(Math.log(Math.exp(1) / total), 14)
    expect(logSoftmaxAt(logits, 3)).toBe(-Infinity)
    fc.assert(
      fc.property(someLogits, (given) => {
        fc.pre(bestToken(given) >= 0)
        const sum = Array.from(given, (_, id) => Math.exp(logSoftmaxAt(given, id))).reduce((a, b) => a + b)
        expect(Math.abs(sum - 1)).toBeLessThan(1e-9)
      }),
    )
  })

  it('neither overflows nor underflows', () => {
    expect(logSoftmaxAt(Float32Array.of(3e38, 3e38), 1)).toBeCloseTo(-Math.LN2, 15)
    expect(logSoftmaxAt(Float32Array.of(-3e38, -3e38), 0)).toBeCloseTo(-Math.LN2, 15)
    expect(logSoftmaxAt(Float32Array.of(0, -1e5), 1)).toBe(-1e5)
  })

  it('refuses ids outside and logits that are all ruled out', () => {
    for (const id of [-1, 2, 0.5])
      expect(() => logSoftmaxAt(Float32Array.of(1, 2), id)).toThrow(expect.objectContaining({ code: 'ERR_TOKEN_RANGE' }))
    expect(() => logSoftmaxAt(Float32Array.of(-Infinity), 0)).toThrow(expect.objectContaining({ code: 'ERR_NOT_FINITE' }))
  })
})
