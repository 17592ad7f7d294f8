/** The whole engine against float64 references: is the mathematics right? */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { loadModel, type Engine } from '../../src/index.ts'
import { topLogits } from '../../src/sampling/top-logits.ts'
import { goldenRuns, hasSharedGolden, NormalisedError } from './golden-files.ts'

if (!hasSharedGolden) console.warn('golden: only the bundled model is checked, the larger set is not there')

/**
 * Bounds of the reference set: activations of quantised files are 8-bit, those of float files are exact, and 16-bit ones nearly so. Where the
 * reference's two best logits are closer than `gap`, either may be chosen.
 */
const BOUNDS: readonly { readonly runs: RegExp; readonly nmse: number; readonly gap: number }[] = [
  { runs: /-(F32|F16|BF16)/, nmse: 2e-6, gap: 0 },
  { runs: / q16$/, nmse: 1e-7, gap: 0.01 },
  { runs: /-Q4_K/, nmse: 3e-4, gap: 1 },
  { runs: /-(Q8_0|Q4_0|Q6_K|Q5_0|Q5_K|IQ4_NL)/, nmse: 1e-3, gap: 1 },
]

describe.each(goldenRuns())('$name, $activations', ({ name, path, cases, activations }) => {
  const bound = BOUNDS.find(({ runs }) => runs.test(`${name} ${activations}`))!
  let engine: Engine
  beforeAll(async () => {
    engine = await loadModel(path, { threads: 2, ubatch: 64, activations })
  })
  afterAll(() => engine.close())

  it.each(cases)('logits of $name', async ({ prompt, positions }) => {
    await using session = engine.session()
    const error = new NormalisedError()
    const wrongTop: number[] = []
    await session.evaluate(prompt, (index, logits) => {
      const { top20, logits: reference } = positions[index]!
      if (reference) error.add(logits, reference)
      const [first, second] = top20
      const isClear = first![1] - second![1] >= bound.gap
      if (isClear && topLogits(logits, 1)[0]![0] !== first![0]) wrongTop.push(index)
    })
    expect(error.value).toBeLessThanOrEqual(bound.nmse)
    expect(wrongTop).toEqual([])
  })

  it.runIf(bound.gap < 1).each(cases)('greedy continuation of $name', async ({ prompt, greedy }) => {
    await using session = engine.session()
    let logits = await session.sync(prompt)
    const ids: number[] = []
    while (ids.length < greedy.length) {
      const id = topLogits(logits, 1)[0]![0]
      ids.push(id)
      logits = await session.decode(id)
    }
    expect(ids).toEqual(greedy)
  })
})
