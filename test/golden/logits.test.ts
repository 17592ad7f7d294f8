/** The whole engine against float64 references: is the mathematics right? */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { loadModel, type Engine } from '../../src/index.ts'
import { topLogits } from '../../src/sampling/top-logits.ts'
import { goldenModels, hasSharedGolden, NormalisedError } from './golden-files.ts'

if (!hasSharedGolden) console.warn('golden: only the bundled model is checked, the larger set is not there')

/** Bounds of the reference set: activations of quantised files are 8-bit, those of float files are exact. */
const BOUNDS: readonly { readonly files: RegExp; readonly nmse: number; readonly isExact: boolean }[] = [
  { files: /-(F32|F16|BF16)/, nmse: 2e-6, isExact: true },
  { files: /-Q4_K/, nmse: 3e-4, isExact: false },
  { files: /-(Q8_0|Q4_0|Q6_K|Q5_0|Q5_K|IQ4_NL)/, nmse: 1e-3, isExact: false },
]

/** Where the reference's two best logits are closer than this, a quantised file may choose either. */
const CLEAR_GAP = 1

describe.each(goldenModels())('$name', ({ name, path, cases }) => {
  const bound = BOUNDS.find(({ files }) => files.test(name))!
  let engine: Engine
  beforeAll(async () => {
    engine = await loadModel(path, { threads: 2, ubatch: 64 })
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
      const isClear = bound.isExact || first![1] - second![1] > CLEAR_GAP
      if (isClear && topLogits(logits, 1)[0]![0] !== first![0]) wrongTop.push(index)
    })
    expect(error.value).toBeLessThanOrEqual(bound.nmse)
    expect(wrongTop).toEqual([])
  })

  it.runIf(bound.isExact).each(cases)('greedy continuation of $name', async ({ prompt, greedy }) => {
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
