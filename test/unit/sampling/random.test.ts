import { describe, expect, it } from 'vitest'
import { createRandom, xoshiro128 } from '../../../src/sampling/random.ts'

describe('random numbers', () => {
  it('are those of the reference implementation', () => {
    // The C code at prng.di.unimi.it/xoshiro128starstar.c, from the state {1, 2, 3, 4}.
    const next = xoshiro128(Uint32Array.of(1, 2, 3, 4))
    const expected = [11520, 0, 5927040, 70819200, 2031721883, 1637235492, 1287239034, 3734860849, 3729100597, 4258142804]
    expect(expected.map(() => next())).toEqual(expected)
  })

  it('are uniform in [0, 1) and depend on the whole seed', () => {
    const random = createRandom(7)
    const bins = Array.from({ length: 16 }, () => 0)
    for (let i = 0; i < 160_000; i++) {
      const value = random()
      if (!(value >= 0 && value < 1)) expect.fail(`${value} is not in [0, 1)`)
      bins[Math.floor(value * 16)]!++
    }
    // Chi-squared with 15 degrees of freedom: above 37.7 once in a thousand seeds; this seed is fixed.
    const chi2 = bins.reduce((sum, count) => sum + (count - 10_000) ** 2 / 10_000, 0)
    expect(chi2).toBeLessThan(37.7)
    const first = [0, 1, 2 ** 32, Number.MAX_SAFE_INTEGER].map((seed) => createRandom(seed)())
    expect(new Set(first).size).toBe(4)
  })

  it('stay the same from release to release', () => {
    const random = createRandom(42)
    expect([random(), random(), random()]).toMatchInlineSnapshot(`
      [
        0.4137016681565887,
        0.003983993377814743,
        0.6500837027638867,
      ]
    `)
  })
})
