/** Calls at the wrong time or with the wrong things: each fails with its code and harms nothing. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Engine } from '../../src/engine/engine.ts'
import { loadModel } from '../../src/engine/load-model.ts'
import { codeOf, greedy, type MicroModel, microModel, SMALL, someTokens, VOCABULARY } from '../fixtures/engine-micro.ts'

const PROMPT = someTokens(30)
/** Long enough to be in the middle of when something happens. */
const LONG = someTokens(250)

let model: MicroModel
let engine: Engine

beforeAll(async () => {
  model = await microModel()
  engine = await loadModel(model.path, { ...SMALL, kvTokens: 512 })
})
afterAll(async () => {
  await engine.close()
  await model[Symbol.asyncDispose]()
})

describe('tokens', () => {
  test.each([-1, VOCABULARY, 1.5, Number.NaN, 2 ** 32])('%d is not in the vocabulary', async (token) => {
    await using session = engine.session()
    await session.sync(PROMPT)
    expect(await codeOf(session.decode(token))).toBe('ERR_TOKEN_RANGE')
    expect(await codeOf(session.sync([...PROMPT, token]))).toBe('ERR_TOKEN_RANGE')
    expect(await codeOf(session.evaluate([token], () => undefined))).toBe('ERR_TOKEN_RANGE')
    expect(session.tokens).toEqual(PROMPT)
  })

  test('more than the context holds', async () => {
    await using session = engine.session()
    expect(await codeOf(session.sync(someTokens(257)))).toBe('ERR_CONTEXT_OVERFLOW')
    expect(await codeOf(session.evaluate(someTokens(257), () => undefined))).toBe('ERR_CONTEXT_OVERFLOW')
    await session.sync(someTokens(256))
    expect(await codeOf(session.decode(1))).toBe('ERR_CONTEXT_OVERFLOW')
    expect(session.tokens.length).toBe(256)
  })

  test('more than the cache holds: the others keep what they have, and closing one makes room', async () => {
    await using first = engine.session()
    await using second = engine.session()
    await using third = engine.session()
    await first.sync(LONG)
    await second.sync(LONG)
    expect(await codeOf(third.sync(PROMPT))).toBe('ERR_KV_EXHAUSTED')
    expect(third.tokens).toEqual([])
    await first.decode(1)
    await second.close()
    await third.sync(PROMPT)
  })
})

describe('a busy session', () => {
  test('refuses every other call until it is done', async () => {
    await using session = engine.session()
    const working = session.sync(LONG)
    expect(await codeOf(session.sync(PROMPT))).toBe('ERR_BUSY')
    expect(await codeOf(session.decode(1))).toBe('ERR_BUSY')
    expect(await codeOf(session.evaluate(PROMPT, () => undefined))).toBe('ERR_BUSY')
    expect(await codeOf(session.generate(PROMPT).next())).toBe('ERR_BUSY')
    expect(() => session.truncate(0)).toThrow(expect.objectContaining({ code: 'ERR_BUSY' }))
    await working
    expect(session.tokens).toEqual(LONG)
  })
})

describe('abort', () => {
  test('before and during a prompt: what was computed is kept', async () => {
    await using session = engine.session()
    expect(await codeOf(session.sync(LONG, { signal: AbortSignal.abort() }))).toBe('ERR_ABORTED')
    expect(session.tokens).toEqual([])
    const controller = new AbortController()
    const reason = new Error('enough')
    const onProgress = (): void => controller.abort(reason)
    await expect(session.sync(LONG, { signal: controller.signal, onProgress })).rejects.toMatchObject({ code: 'ERR_ABORTED' })
    expect(session.tokens).toEqual(LONG.slice(0, session.tokens.length))
    expect(session.tokens.length).toBeGreaterThan(0)
    expect(session.tokens.length).toBeLessThan(LONG.length)
    const logits = (await session.sync(LONG)).slice()
    await using fresh = engine.session()
    expect(await fresh.sync(LONG)).toEqual(logits)
  })

  test('during an answer', async () => {
    await using session = engine.session()
    const controller = new AbortController()
    const { signal } = controller
    const answer = async (): Promise<void> => {
      for await (const _ of session.generate(PROMPT, { signal, temperature: 5, seed: 1 })) controller.abort()
    }
    expect(await codeOf(answer())).toBe('ERR_ABORTED')
    await session.sync(PROMPT)
  })
})

describe('close', () => {
  test('of a session in the middle of a call: the call fails, the blocks come back, once is enough', async () => {
    const session = engine.session()
    const working = codeOf(session.sync(LONG))
    const closings = [session.close(), session.close()]
    await Promise.all(closings)
    expect(await working).toBe('ERR_CLOSED')
    expect(await codeOf(session.sync(PROMPT))).toBe('ERR_CLOSED')
    expect(await codeOf(session.decode(1))).toBe('ERR_CLOSED')
    expect(await codeOf(session.evaluate(PROMPT, () => undefined))).toBe('ERR_CLOSED')
    expect(await codeOf(session.generate(PROMPT).next())).toBe('ERR_CLOSED')
    expect(() => session.truncate(0)).toThrow(expect.objectContaining({ code: 'ERR_CLOSED' }))
    const two = [engine.session(), engine.session()]
    for (const each of two) await each.sync(LONG)
    for (const each of two) await each.close()
  })

  test('of a session in the middle of an answer', async () => {
    const session = engine.session()
    const answer = async (): Promise<void> => {
      for await (const _ of session.generate(PROMPT, { temperature: 5, seed: 1 })) void session.close()
    }
    expect(await codeOf(answer())).toBe('ERR_CLOSED')
  })

  test('of an engine: everything that runs fails, everything after too, and the engine beside it does not notice', async () => {
    const own = await loadModel(model.path, SMALL)
    const [first, second] = [own.session(), own.session()]
    await second.sync(PROMPT)
    const running = [codeOf(first.sync(LONG)), codeOf(own.generate(LONG.slice(0, 200)))]
    await new Promise((resolve) => setImmediate(resolve))
    await Promise.all([own.close(), own.close()])
    expect(await Promise.all(running)).toEqual(['ERR_CLOSED', 'ERR_CLOSED'])
    await own.close()
    expect(() => own.session()).toThrow(expect.objectContaining({ code: 'ERR_CLOSED' }))
    expect(await codeOf(own.generate(PROMPT))).toBe('ERR_CLOSED')
    for (const session of [first, second]) {
      expect(await codeOf(session.sync(PROMPT))).toBe('ERR_CLOSED')
      expect(await codeOf(session.decode(1))).toBe('ERR_CLOSED')
      expect(await codeOf(session.generate(PROMPT).next())).toBe('ERR_CLOSED')
      expect(() => session.truncate(0)).toThrow(expect.objectContaining({ code: 'ERR_CLOSED' }))
      await session.close()
    }
    expect((await greedy(engine, PROMPT, 3)).length).toBe(3)
  })
})
