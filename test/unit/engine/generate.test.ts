/** Generation: where it stops, what it reports, and how a caller leaves it. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Engine, Session } from '../../../src/engine/engine.ts'
import type { Finish, GenerateOptions, Prompt } from '../../../src/engine/generate.ts'
import { loadModel } from '../../../src/engine/load-model.ts'
import { codeOf, greedy, type MicroModel, microModel, SMALL, someTokens } from '../../fixtures/engine-micro.ts'

const PROMPT = someTokens(20)
const CONTEXT = 96

let model: MicroModel
let engine: Engine

beforeAll(async () => {
  model = await microModel()
  engine = await loadModel(model.path, { ...SMALL, contextTokens: CONTEXT, kvTokens: 4 * CONTEXT })
})
afterAll(async () => {
  await engine.close()
  await model[Symbol.asyncDispose]()
})

interface Collected {
  readonly text: string
  readonly tokens: number[]
  readonly finish: Finish
}

async function collect(session: Session, prompt: Prompt, options: GenerateOptions = {}): Promise<Collected> {
  let text = ''
  const tokens: number[] = []
  let finish: Finish | undefined
  for await (const delta of session.generate(prompt, options)) {
    expect(finish).toBeUndefined()
    text += delta.text
    if (delta.token !== undefined) tokens.push(delta.token)
    finish = delta.finish
  }
  expect(finish).toBeDefined()
  expect(finish!.tokens).toBe(tokens.length)
  return { text, tokens, finish: finish! }
}

async function once(prompt: Prompt, options: GenerateOptions = {}): Promise<Collected> {
  await using session = engine.session()
  return await collect(session, prompt, options)
}

describe('what comes out', () => {
  test('greedy generation gives the tokens with the largest logits and their text', async () => {
    const { tokens, text, finish } = await once(PROMPT, { maxTokens: 12 })
    expect(tokens).toEqual(await greedy(engine, PROMPT, 12))
    expect(text).toBe(engine.tokenizer.decode(tokens))
    expect(finish).toMatchObject({ finishReason: 'length', promptTokens: PROMPT.length, reusedTokens: 0, tokens: 12 })
    expect(Object.values(finish.timings).every((value) => Number.isFinite(value) && value >= 0)).toBe(true)
  })

  test('the engine gives the whole answer at once', async () => {
    const { text, finish } = await once(PROMPT, { maxTokens: 8 })
    const answer = await engine.generate(PROMPT, { maxTokens: 8 })
    expect(answer).toMatchObject({ text, finishReason: finish.finishReason, tokens: 8 })
  })

  test('a seed gives the same tokens again, another gives others', async () => {
    const sample = async (seed: number): Promise<number[]> => (await once(PROMPT, { maxTokens: 16, temperature: 3, seed })).tokens
    const first = await sample(11)
    expect(await sample(11)).toEqual(first)
    expect(await sample(12)).not.toEqual(first)
  })

  test('the seed that was chosen is told, and gives the same tokens', async () => {
    const { tokens, finish } = await once(PROMPT, { maxTokens: 16, temperature: 3 })
    expect((await once(PROMPT, { maxTokens: 16, temperature: 3, seed: finish.seed })).tokens).toEqual(tokens)
  })

  test('text, raw text and conversations are prompts too', async () => {
    const raw = await once('hello there', { maxTokens: 2, raw: true })
    expect(raw.finish.promptTokens).toBe(engine.tokenizer.encode('hello there', { parseSpecial: true }).length)
    const asked = await once('hello there', { maxTokens: 2 })
    const conversation = await once([{ role: 'user', content: 'hello there' }], { maxTokens: 2 })
    expect(asked.finish.promptTokens).toBeGreaterThan(raw.finish.promptTokens)
    expect(conversation.tokens).toEqual(asked.tokens)
  })

  test('a second turn reuses what the first has computed', async () => {
    await using session = engine.session()
    const first = await collect(session, PROMPT, { maxTokens: 5 })
    const next = [...PROMPT, ...first.tokens, ...someTokens(4, 5)]
    const { finish } = await collect(session, next, { maxTokens: 2 })
    // the last token of the first turn was never fed back
    expect(finish.reusedTokens).toBe(PROMPT.length + 4)
  })
})

describe('where it ends', () => {
  test.each([0, 1, 2])('after maxTokens %i', async (maxTokens) => {
    const { tokens, finish } = await once(PROMPT, { maxTokens })
    expect(tokens.length).toBe(maxTokens)
    expect(finish.finishReason).toBe('length')
  })

  test('before a stop text, wherever it is cut into tokens', async () => {
    const { text } = await once(PROMPT, { maxTokens: 24 })
    for (const length of [1, 2, 3]) {
      const begin = Math.floor(text.length / 2)
      const stop = text.slice(begin, begin + length)
      const stopped = await once(PROMPT, { maxTokens: 24, stop: ['never to be seen', stop] })
      expect(stopped.text).toBe(text.slice(0, text.indexOf(stop)))
      expect(stopped.finish.finishReason).toBe('stop')
      expect(stopped.finish.tokens).toBeLessThanOrEqual(24)
    }
  })

  test("at the context's end, with every position used", async () => {
    await using session = engine.session()
    const { tokens, finish } = await collect(session, PROMPT)
    if (finish.finishReason === 'stop') return
    expect(finish.finishReason).toBe('length')
    // the last token has no position of its own
    expect(tokens.length).toBe(CONTEXT - PROMPT.length + 1)
    expect(session.tokens.length).toBe(CONTEXT)
  })

  test('after one token when the prompt fills the context', async () => {
    const { tokens, finish } = await once(someTokens(CONTEXT))
    expect(tokens.length).toBeLessThanOrEqual(1)
    expect(finish.promptTokens).toBe(CONTEXT)
  })
})

describe('leaving', () => {
  test('the loop early leaves the session usable', async () => {
    await using session = engine.session()
    for await (const delta of session.generate(PROMPT)) if (delta.token !== undefined) break
    const { tokens } = await collect(session, PROMPT, { maxTokens: 6 })
    expect(tokens).toEqual(await greedy(engine, PROMPT, 6))
  })

  test('the block of `await using` closes the session', async () => {
    let outer: Session
    {
      await using session = engine.session()
      outer = session
      await session.sync(PROMPT)
    }
    expect(await codeOf(outer.sync(PROMPT))).toBe('ERR_CLOSED')
  })

  test('the block of `await using` closes an engine', async () => {
    let outer: Engine
    {
      await using own = await loadModel(model.path, SMALL)
      outer = own
      expect((await own.generate(PROMPT, { maxTokens: 2 })).tokens).toBe(2)
    }
    expect(() => outer.session()).toThrow(expect.objectContaining({ code: 'ERR_CLOSED' }))
  })
})

describe('wrong options', () => {
  test.each([{ maxTokens: -1 }, { maxTokens: 1.5 }, { temperature: -1 }, { topP: 2 }, { stop: '' }] satisfies GenerateOptions[])(
    '%o are refused before anything is computed',
    async (options) => {
      await using session = engine.session()
      expect(await codeOf(session.generate(PROMPT, options).next())).toBe('ERR_ARGUMENT')
      expect(session.tokens).toEqual([])
    },
  )

  test('an empty prompt is refused', async () => {
    expect(await codeOf(once([]))).toBe('ERR_ARGUMENT')
    expect(await codeOf(once('', { raw: true }))).toBe('ERR_ARGUMENT')
  })
})
