import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { SamplingOptions } from '../../../src/sampling/options.ts'
import { createRandom } from '../../../src/sampling/random.ts'
import { createSampler } from '../../../src/sampling/sampler.ts'
import { referenceDistribution } from './reference.ts'

const noise = createRandom(1)
/** Logits of a plausible spread: most far below a few. */
const spread = (count: number, scale = 4): Float32Array =>
  Float32Array.from({ length: count }, () => scale * (noise() + noise() + noise() - 1.5))
const code = (name: string): unknown => expect.objectContaining({ code: name })

describe('greedy sampling', () => {
  it('is the default and takes the lowest id of equals', () => {
    expect(createSampler().sample(Float32Array.of(1, 3, 2, 3), [])).toBe(1)
    expect(createSampler({ topK: 2, topP: 0.1, minP: 0.9 }).sample(Float32Array.of(-Infinity, -5), [])).toBe(1)
  })

  it('is what a very low temperature comes to', () => {
    const logits = spread(200)
    const best = createSampler().sample(logits, [])
    expect(createSampler({ temperature: 1e-9, seed: 1 }).sample(logits, [])).toBe(best)
    expect(createSampler({ temperature: 1, topK: 1, seed: 1 }).sample(logits, [])).toBe(best)
  })
})

describe('random sampling', () => {
  const history = [3, 5, 3, 8]
  it.each<[string, SamplingOptions]>([
    ['temperature 1', { temperature: 1 }],
    ['temperature 0.5', { temperature: 0.5 }],
    ['temperature 3', { temperature: 3 }],
    ['top-k', { temperature: 1, topK: 5 }],
    ['top-k beyond the vocabulary', { temperature: 1, topK: 500 }],
    ['top-p', { temperature: 1, topP: 0.7 }],
    ['top-p nearly 1', { temperature: 1, topP: 0.999 }],
    ['min-p', { temperature: 1, minP: 0.1 }],
    ['top-k, top-p', { temperature: 1, topK: 10, topP: 0.8 }],
    ['penalty', { temperature: 1, repetitionPenalty: 1.8 }],
    ['penalty below 1', { temperature: 1, repetitionPenalty: 0.5, repetitionWindow: 1 }],
    ['all', { temperature: 0.8, topK: 20, topP: 0.95, minP: 0.02, repetitionPenalty: 1.2 }],
  ])('draws from the right distribution: %s', (_, options) => {
    const logits = spread(40)
    logits[7] = -Infinity
    const expected = referenceDistribution(logits, history, options)
    const sampler = createSampler({ ...options, seed: 11 })
    const draws = 40_000
    const counts = Array.from(logits, () => 0)
    for (let i = 0; i < draws; i++) counts[sampler.sample(logits, history)]!++
    for (const [id, probability] of expected.entries()) {
      if (probability === 0) expect(counts[id]).toBe(0)
      // Five standard deviations, and a little for the rare tokens, whose counts are not normal. The seed is fixed.
      const deviation = Math.sqrt(draws * probability * (1 - probability))
      expect(Math.abs(counts[id]! - draws * probability)).toBeLessThanOrEqual(5 * deviation + 2)
    }
  })

  it('never draws what a filter removes and can draw all the rest', () => {
    const option = fc.record({
      temperature: fc.constantFrom(0.5, 1, 50),
      topK: fc.nat(40),
      topP: fc.constantFrom(1, 0.9991, 0.8973, 0.5137, 0.0101),
      minP: fc.constantFrom(0, 0.001, 0.1, 1),
      repetitionPenalty: fc.constantFrom(1, 1.5, 0.7),
      repetitionWindow: fc.nat(5),
    })
    const values = fc.array(fc.oneof(fc.integer({ min: -4, max: 4 }), fc.constant(-Infinity)), { minLength: 1, maxLength: 30 })
    fc.assert(
      fc.property(values, option, fc.array(fc.nat(29), { maxLength: 6 }), (given, options, past) => {
        fc.pre(given.some((logit) => logit > -Infinity))
        const logits = Float32Array.from(given)
        const copy = logits.slice()
        const recent = past.filter((id) => id < logits.length)
        const expected = referenceDistribution(logits, recent, options)
        const sampler = createSampler({ ...options, seed: given.length })
        for (let i = 0; i < 20; i++) expect(expected[sampler.sample(logits, recent)]).toBeGreaterThan(0)
        expect(logits).toEqual(copy)
      }),
      { numRuns: 1000 },
    )
  })

  it.each([0.5137, 0.8973, 0.9911])('cuts a wide and unsure vocabulary at the right place: top-p %d', (topP) => {
    // Flat logits with many equals, so that the cut goes through a tie.
    const logits = Float32Array.from({ length: 1200 }, () => Math.round(noise() * 8) / 8)
    for (const minP of [0, 0.5]) {
      const expected = referenceDistribution(logits, [], { topP, minP })
      const sampler = createSampler({ temperature: 1, topP, minP, seed: 5 })
      const seen = new Set(Array.from({ length: 10_000 }, () => sampler.sample(logits, [])))
      for (const id of seen) expect(expected[id]).toBeGreaterThan(0)
      expect(seen.size).toBeGreaterThan(0.99 * expected.filter((probability) => probability > 0).length)
    }
  })

  it('keeps everything for a top-p that rounds to all, and copes with logits far apart', () => {
    for (const topP of [1 - 2 ** -53, 1 - 1e-12]) {
      for (const logits of [Float32Array.of(0, -1000, -Infinity), Float32Array.of(3e38, -3e38), spread(300)]) {
        expect(logits[createSampler({ temperature: 1, topP, seed: 2 }).sample(logits, [])]).toBeGreaterThan(-Infinity)
      }
    }
  })

  it('repeats itself for the same seed and reports a random one', () => {
    const logits = spread(100)
    const draw = (seed?: number): [number[], number] => {
      const sampler = createSampler({ temperature: 1, ...(seed === undefined ? {} : { seed }) })
      return [Array.from({ length: 30 }, () => sampler.sample(logits, [])), sampler.seed]
    }
    const [tokens, seed] = draw()
    expect(draw(seed)).toEqual([tokens, seed])
    expect(draw(seed + 1)[0]).not.toEqual(tokens)
    expect(draw(0)[0]).toEqual(draw(0)[0])
  })

  it('follows a vocabulary that changes size', () => {
    const sampler = createSampler({ temperature: 1, topP: 0.9, repetitionPenalty: 2, seed: 3 })
    for (const count of [10, 1000, 1, 400]) expect(sampler.sample(spread(count), [0])).toBeLessThan(count)
  })
})

describe('repetition penalty', () => {
  const logits = Float32Array.of(4, 3, -1, -2)

  it('divides positive logits and multiplies the others, once per token', () => {
    expect(createSampler({ repetitionPenalty: 2 }).sample(logits, [0, 0, 0])).toBe(1) // 4 / 2 < 3
    expect(createSampler({ repetitionPenalty: 1.3 }).sample(logits, [0, 0, 0])).toBe(0) // 4 / 1.3 > 3, and only once
    expect(
      createSampler({ repetitionPenalty: 3 }).sample(
        logits.map((logit) => logit - 4),
        [0, 1],
      ),
    ).toBe(0) // 0 stays 0
    expect(createSampler({ repetitionPenalty: 3 }).sample(Float32Array.of(-1, -2), [0])).toBe(1) // -1 * 3 < -2
  })

  it('looks back as far as the window', () => {
    const past = [0, ...Array.from({ length: 64 }, () => 3)]
    expect(createSampler({ repetitionPenalty: 2 }).sample(logits, past)).toBe(0)
    expect(createSampler({ repetitionPenalty: 2, repetitionWindow: 65 }).sample(logits, past)).toBe(1)
    expect(createSampler({ repetitionPenalty: 2, repetitionWindow: 0 }).sample(logits, [0])).toBe(0)
  })

  it('refuses a history that does not belong to the logits', () => {
    expect(() => createSampler({ repetitionPenalty: 2 }).sample(logits, [4])).toThrow(code('ERR_TOKEN_RANGE'))
  })
})

describe('bad input', () => {
  it.each([Number.NaN, Infinity])('logits with %d', (bad) => {
    for (const options of [{}, { temperature: 1 }, { temperature: 1, topK: 2 }, { temperature: 1, topP: 0.5 }, { repetitionPenalty: 2 }]) {
      expect(() => createSampler(options).sample(Float32Array.of(1, bad, 3), [1])).toThrow(code('ERR_NOT_FINITE'))
    }
  })

  it('logits that leave nothing', () => {
    expect(() => createSampler().sample(Float32Array.of(-Infinity, -Infinity), [])).toThrow(code('ERR_NOT_FINITE'))
    expect(() => createSampler({ temperature: 1 }).sample(new Float32Array(0), [])).toThrow(code('ERR_NOT_FINITE'))
  })

  it.each<[keyof SamplingOptions, readonly unknown[]]>([
    ['temperature', [-0.1, 1001, Number.NaN, Infinity, '1', null]],
    ['topK', [-1, 1.5, 2 ** 31, Number.NaN]],
    ['topP', [0, -1, 1.01, Number.NaN]],
    ['minP', [-0.1, 1.1, Number.NaN]],
    ['repetitionPenalty', [0, -1, 101, Number.NaN]],
    ['repetitionWindow', [-1, 0.5, Infinity]],
    ['seed', [-1, 0.5, 2 ** 53, Number.NaN]],
  ])('%s out of range', (name, values) => {
    for (const value of values) {
      expect(() => createSampler({ [name]: value })).toThrow(
        expect.objectContaining({ code: 'ERR_ARGUMENT', message: expect.stringContaining(`${name}: must be `) }),
      )
    }
  })
})
