/** Pipelines with a device, which here is the stand-in for a GPU, against the float64 references and against the pool alone. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { loadModel, type Engine } from '../../src/index.ts'
import { topLogits } from '../../src/sampling/top-logits.ts'
import { hasDevice } from '../fixtures/stand-in.ts'
import { goldenRuns, hasSharedGolden, NormalisedError } from './golden-files.ts'

if (!hasSharedGolden) console.warn('golden: only the bundled model is checked on the stand-in, the larger set is not there')

/**
 * `nmse`: bounds of the reference set. `difference`: between a pipeline and the pool. Both quantise activations to the same records until sums that differ
 * in their last bit fall on two sides of a rounding; from there on each has rounding errors of its own, as large as those of the reference's bound. With 16
 * bits those are smaller than what the f16 cache of a GPU makes. `gap`: where the reference's two best logits are closer, either may be chosen.
 */
const BOUNDS: readonly { readonly runs: RegExp; readonly nmse: number; readonly difference: number; readonly gap: number }[] = [
  { runs: /-(F32|F16|BF16)/, nmse: 2e-6, difference: 1e-6, gap: 0 },
  { runs: / q16$/, nmse: 2e-6, difference: 1e-6, gap: 0.01 },
  { runs: /-Q4_K/, nmse: 3e-4, difference: 3e-4, gap: 1 },
  { runs: /-(Q8_0|Q4_0|Q6_K|Q5_0|Q5_K|IQ4_NL)/, nmse: 1e-3, difference: 1e-3, gap: 1 },
]

const OPTIONS = { threads: 2, ubatch: 64 }

const top = (logits: Float32Array): number => topLogits(logits, 1)[0]![0]

async function evaluate(engine: Engine, prompt: readonly number[]): Promise<Float32Array[]> {
  const rows: Float32Array[] = []
  await using session = engine.session()
  await session.evaluate(prompt, (_, logits) => void rows.push(logits.slice()))
  return rows
}

describe.skipIf(!hasDevice).each(goldenRuns())('$name, $activations', ({ name, path, cases, activations }) => {
  const bound = BOUNDS.find(({ runs }) => runs.test(`${name} ${activations}`))!
  let pool: Engine
  beforeAll(async () => {
    pool = await loadModel(path, { ...OPTIONS, activations, pipeline: 'cpu' })
  })
  afterAll(() => pool.close())

  describe.each(['gpu', 'hybrid'])('pipeline %s', (pipeline) => {
    let engine: Engine
    beforeAll(async () => {
      engine = await loadModel(path, { ...OPTIONS, activations, pipeline })
    })
    afterAll(() => engine.close())

    it.each(cases)('logits of $name', async ({ prompt, positions }) => {
      const [ours, theirs] = [await evaluate(engine, prompt), await evaluate(pool, prompt)]
      const error = new NormalisedError()
      const difference = new NormalisedError()
      const wrongTop: number[] = []
      for (const [index, logits] of ours.entries()) {
        const { top20, logits: reference } = positions[index]!
        if (reference) error.add(logits, reference)
        difference.add(logits, [...theirs[index]!])
        const [first, second] = top20
        if (first![1] - second![1] < bound.gap) continue
        if (top(logits) !== first![0]) wrongTop.push(index)
      }
      expect(error.value).toBeLessThanOrEqual(bound.nmse)
      expect(difference.value).toBeLessThanOrEqual(bound.difference)
      expect(wrongTop).toEqual([])
      if (bound.gap === 0) expect(ours.map(top)).toEqual(theirs.map(top))
    })

    it.runIf(bound.gap === 0).each(cases)('greedy continuation of $name', async ({ prompt, greedy }) => {
      await using session = engine.session()
      let logits = await session.sync(prompt)
      const ids: number[] = []
      while (ids.length < greedy.length) {
        ids.push(top(logits))
        logits = await session.decode(ids.at(-1)!)
      }
      expect(ids).toEqual(greedy)
    })

    it.runIf(activations === 'q16').each(cases.slice(0, 3))('token by token, $name', async ({ prompt }) => {
      const together = await evaluate(engine, prompt)
      const difference = new NormalisedError()
      await using session = engine.session()
      difference.add(await session.sync(prompt.slice(0, 1)), [...together[0]!])
      for (const [index, token] of prompt.slice(1).entries()) difference.add(await session.decode(token), [...together[index + 1]!])
      expect(difference.value).toBeLessThanOrEqual(bound.difference)
    })
  })
})
