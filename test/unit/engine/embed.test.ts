/** Embeddings and scores, against the logits and hidden states that they are made of. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Engine } from '../../../src/engine/engine.ts'
import { loadModel } from '../../../src/engine/load-model.ts'
import { definePipeline } from '../../../src/pipeline/define.ts'
import { logSoftmaxAt } from '../../../src/sampling/log-softmax.ts'
import { allLogits, codeOf, type MicroModel, microModel, nmse, SMALL, someTokens } from '../../fixtures/engine-micro.ts'

let model: MicroModel
let engine: Engine
beforeAll(async () => {
  model = await microModel()
  engine = await loadModel(model.path, { ...SMALL, outputs: 8 })
})
afterAll(async () => {
  await engine.close()
  await model[Symbol.asyncDispose]()
})

/** The hidden states of all tokens. */
async function states(tokens: readonly number[]): Promise<Float32Array[]> {
  const found: Float32Array[] = []
  await using session = engine.session()
  await session.hiddenStates(tokens, 'all', (index, state) => void (found[index] = state.slice()))
  return found
}

const lengthOf = (vector: Float32Array): number => Math.hypot(...vector)

describe('embeddings', () => {
  test('hidden states are those before the head, after its norm', async () => {
    const tokens = someTokens(45)
    const module = new URL('../../fixtures/user-functions.ts', import.meta.url)
    const pipeline = definePipeline({
      name: 'x',
      executor: 'wasm',
      userStages: [{ name: 'x', before: 'head', module, export: 'echo', whenFull: 'wait' }],
    })
    await using observed = await loadModel(model.path, { ...SMALL, pipeline })
    await allLogits(observed, tokens)
    const { hidden } = engine.model.hyper
    const results = await observed.userStage<{ x: Float32Array }>('x').collect()
    const rows = results.flatMap(({ value: { x } }) =>
      Array.from({ length: x.length / hidden }, (_, row) => x.slice(row * hidden, (row + 1) * hidden)),
    )
    const found = await states(tokens)
    expect(found.length).toBe(45)
    // the norm scales a row to a mean square of 1, and the weights of this model's norms are near 1
    for (const [index, row] of rows.entries()) {
      const scale = Math.sqrt(hidden) / Math.hypot(...row)
      expect(
        nmse(
          found[index]!,
          row.map((value) => value * scale),
        ),
      ).toBeLessThan(0.1)
    }
  })

  test('pool by mean or last token, scaled to length 1 or not', async () => {
    const texts = [someTokens(45), someTokens(3, 2), [7]]
    const { hidden } = engine.model.hyper
    for (const pooling of ['mean', 'last'] as const) {
      const vectors = await engine.embed(texts, { pooling, normalize: false })
      const scaled = await engine.embed(texts, { pooling })
      for (const [index, tokens] of texts.entries()) {
        const rows = await states(tokens)
        const expected =
          pooling === 'last' ? rows.at(-1)! : rows[0]!.map((_, column) => rows.reduce((sum, row) => sum + row[column]!, 0) / rows.length)
        expect(vectors[index]!.length).toBe(hidden)
        expect(nmse(vectors[index]!, expected)).toBeLessThan(1e-12)
        expect(lengthOf(scaled[index]!)).toBeCloseTo(1, 6)
        const length = lengthOf(vectors[index]!)
        expect(
          nmse(
            scaled[index]!,
            vectors[index]!.map((value) => value / length),
          ),
        ).toBeLessThan(1e-12)
      }
    }
  })

  test('of many texts, more than there is room for at once, are those of each alone', async () => {
    const texts = Array.from({ length: 11 }, (_, index) => someTokens(150 - index, index))
    const open = engine.session()
    const together = await engine.embed(texts)
    for (const [index, tokens] of texts.entries()) expect((await engine.embed([tokens]))[0]).toEqual(together[index])
    await open.close()
    expect(await engine.embed([])).toEqual([])
  })

  test('refuse what cannot be embedded, and leave no session behind', async () => {
    expect(await codeOf(engine.embed([[]]))).toBe('ERR_ARGUMENT')
    expect(await codeOf(engine.embed([[1]], { pooling: 'max' as never }))).toBe('ERR_ARGUMENT')
    expect(await codeOf(engine.embed([[1], someTokens(300), [2]]))).toBe('ERR_CONTEXT_OVERFLOW')
    expect(await codeOf(engine.embed([[1]], { signal: AbortSignal.abort() }))).toBe('ERR_ABORTED')
    const sessions = Array.from({ length: 4 }, () => engine.session())
    expect(await codeOf(engine.embed([[1]]))).toBe('ERR_KV_EXHAUSTED')
    for (const session of sessions) await session.close()
  })
})

describe('scores', () => {
  test('are the log probabilities of the continuation, whatever was scored before', async () => {
    const prompt = someTokens(40)
    const continuations = [someTokens(12, 5), someTokens(1, 6), someTokens(30, 5)]
    const scores = await engine.score(prompt, continuations)
    for (const [index, after] of continuations.entries()) {
      const logits = await allLogits(engine, [...prompt, ...after])
      const expected = after.map((token, at) => logSoftmaxAt(logits[prompt.length - 1 + at]!, token))
      const { tokens, logProbability, perToken } = scores[index]!
      expect([...tokens]).toEqual(expected)
      expect(logProbability).toBeCloseTo(
        expected.reduce((sum, each) => sum + each, 0),
        9,
      )
      expect(perToken).toBeCloseTo(logProbability / after.length, 9)
    }
  })

  test('evaluate the prompt once', async () => {
    await using session = engine.session()
    const module = new URL('../../fixtures/user-functions.ts', import.meta.url)
    const pipeline = definePipeline({
      name: 'x',
      executor: 'wasm',
      userStages: [{ name: 'x', after: 'embed', module, export: 'echo', whenFull: 'wait' }],
    })
    await using observed = await loadModel(model.path, { ...SMALL, pipeline })
    await observed.score(someTokens(50), [[1, 2, 3], [4, 5, 6], [7]])
    const steps = await observed.userStage<{ tokens: Int32Array }>('x').collect()
    const evaluated = steps.reduce((sum, { value }) => sum + value.tokens.length, 0)
    // the prompt, its last token again for each further continuation, and of every continuation all but the last token
    expect(evaluated).toBe(50 + 2 + 2 + 2)
    expect(session.tokens.length).toBe(0)
  })

  test('refuse what there is nothing to score of', async () => {
    expect(await codeOf(engine.score([1], [[]]))).toBe('ERR_ARGUMENT')
    expect(await codeOf(engine.score([], [[1]]))).toBe('ERR_ARGUMENT')
    expect(await codeOf(engine.score([1], [[1, 5000]]))).not.toBe('did not reject')
  })

  test('extend appends behind what is there', async () => {
    const tokens = someTokens(30)
    const expected = await allLogits(engine, tokens)
    await using session = engine.session()
    await session.sync(tokens.slice(0, 10))
    const seen: number[] = []
    await session.extend(tokens.slice(10), (index, logits) => {
      seen.push(index)
      expect(logits).toEqual(expected[10 + index])
    })
    expect(seen).toEqual(Array.from({ length: 20 }, (_, index) => index))
    expect(session.tokens).toEqual(tokens)
    expect(await session.sync(tokens)).toEqual(expected.at(-1))
  })
})
