/** The best logits give the tokens that all of them give. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { BestLogits } from '../../../src/abi/step.ts'
import type { SamplingOptions } from '../../../src/sampling/options.ts'
import { createSampler } from '../../../src/sampling/sampler.ts'

/** The front of a full sort. */
function bestOf(logits: Float32Array, count: number): BestLogits {
  const ids = Int32Array.from([...logits.keys()].sort((a, b) => logits[b]! - logits[a]! || a - b).slice(0, count))
  return { ids, logits: Float32Array.from(ids, (id) => logits[id]!) }
}

const code = (name: string): unknown => expect.objectContaining({ code: name })

describe('what a sampler needs', () => {
  it.each<[SamplingOptions, number]>([
    [{}, 1],
    [{ topK: 40, topP: 0.5, minP: 0.5 }, 1],
    [{ repetitionPenalty: 1.1 }, Infinity],
    [{ repetitionPenalty: 1.1, repetitionWindow: 0 }, 1],
    [{ temperature: 1 }, Infinity],
    [{ temperature: 1, topP: 0.9, minP: 0.1 }, Infinity],
    [{ temperature: 1, topK: 1 }, 1],
    [{ temperature: 1, topK: 40, topP: 0.9, minP: 0.1 }, 40],
    [{ temperature: 1, topK: 1000 }, 1000],
    [{ temperature: 1, topK: 40, repetitionPenalty: 0.9 }, Infinity],
  ])('%o', (options, needs) => {
    expect(createSampler(options).needs).toBe(needs)
  })
})

describe('the best logits', () => {
  // coarse steps: many are equal
  const logit = fc.oneof(
    fc.integer({ min: -24, max: 24 }).map((n) => n / 8),
    fc.constantFrom(0, -0),
    fc.double({ min: -9, max: 9, noNaN: true }),
  )
  const some = fc.array(logit, { minLength: 12, maxLength: 90 }).map((values) => Float32Array.from(values))
  const options = fc.record({
    temperature: fc.constantFrom(0, 0.3, 1, 4),
    topK: fc.integer({ min: 1, max: 10 }),
    topP: fc.constantFrom(0.01, 0.3, 0.8, 0.95, 1),
    minP: fc.constantFrom(0, 0.05, 0.6),
    seed: fc.nat(),
  })

  it('give the same tokens as all, draw after draw, and however many more there are', () => {
    fc.assert(
      fc.property(some, options, fc.nat(5), fc.nat(3), (logits, chosen, more, ruledOut) => {
        for (let id = 0; id < ruledOut; id++) logits[id * 3] = -Infinity
        const whole = createSampler(chosen)
        const part = createSampler(chosen)
        const best = bestOf(logits, Math.min(logits.length, part.needs + more))
        for (let draw = 0; draw < 30; draw++) expect(part.sample(best, [])).toBe(whole.sample(logits, []))
      }),
      { numRuns: 500 },
    )
  })

  it('do so where fewer tokens are left than top-k keeps', () => {
    const logits = Float32Array.of(-Infinity, 1, -Infinity, 0, -Infinity, -Infinity)
    const chosen = { temperature: 2, topK: 5, seed: 4 }
    const whole = createSampler(chosen)
    const part = createSampler(chosen)
    for (let draw = 0; draw < 50; draw++) expect(part.sample(bestOf(logits, 5), [])).toBe(whole.sample(logits, []))
  })

  it('are refused where they are too few', () => {
    const best = bestOf(Float32Array.of(1, 2, 3, 4), 2)
    for (const each of [{ temperature: 1 }, { temperature: 1, topK: 3 }, { repetitionPenalty: 2 }]) {
      expect(() => createSampler(each).sample(best, [])).toThrow(code('ERR_ARGUMENT'))
    }
  })

  it('are refused when they are not finite', () => {
    for (const bad of [Number.NaN, Infinity]) {
      for (const each of [{}, { temperature: 1, topK: 2 }]) {
        const best = { ids: Int32Array.of(7, 0), logits: Float32Array.of(bad, 1) }
        expect(() => createSampler(each).sample(best, [])).toThrow(code('ERR_NOT_FINITE'))
      }
    }
  })
})
