/** A session's cache: what it keeps, what it computes again, and that this does not change the results. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Engine, Session } from '../../../src/engine/engine.ts'
import { loadModel } from '../../../src/engine/load-model.ts'
import { codeOf, type MicroModel, microModel, SMALL, someTokens } from '../../fixtures/engine-micro.ts'

const PROMPT = someTokens(50)

let model: MicroModel
let engine: Engine

beforeAll(async () => {
  model = await microModel()
  engine = await loadModel(model.path, { ...SMALL, contextTokens: 128, kvTokens: 512 })
})
afterAll(async () => {
  await engine.close()
  await model[Symbol.asyncDispose]()
})

/** Syncs and returns how many tokens were evaluated, with a copy of the logits. */
async function sync(session: Session, tokens: readonly number[]): Promise<{ evaluated: number; logits: Float32Array }> {
  let evaluated = 0
  const logits = await session.sync(tokens, { onProgress: (done) => void (evaluated = done) })
  return { evaluated, logits: logits.slice() }
}

async function fresh(tokens: readonly number[]): Promise<Float32Array> {
  await using session = engine.session()
  return (await session.sync(tokens)).slice()
}

describe('sync', () => {
  test('evaluates what is new, and nothing when nothing is', async () => {
    await using session = engine.session()
    expect((await sync(session, PROMPT.slice(0, 40))).evaluated).toBe(40)
    const whole = await sync(session, PROMPT)
    expect(whole.evaluated).toBe(10)
    expect(whole.logits).toEqual(await fresh(PROMPT))
    const again = await sync(session, PROMPT)
    expect(again).toEqual({ evaluated: 0, logits: whole.logits })
    expect(session.tokens).toEqual(PROMPT)
  })

  test('keeps the common prefix of another prompt, across block borders', async () => {
    for (const keep of [1, 31, 32, 33, 49]) {
      await using session = engine.session()
      await session.sync(PROMPT)
      const other = [...PROMPT.slice(0, keep), ...someTokens(20, 9)]
      expect(other[keep]).not.toBe(PROMPT[keep])
      const { evaluated, logits } = await sync(session, other)
      expect(evaluated).toBe(20)
      expect(logits).toEqual(await fresh(other))
    }
  })

  test('to a prefix of what is there evaluates its last token alone', async () => {
    await using session = engine.session()
    await session.sync(PROMPT)
    const { evaluated, logits } = await sync(session, PROMPT.slice(0, 20))
    expect(evaluated).toBe(1)
    expect(logits).toEqual(await fresh(PROMPT.slice(0, 20)))
  })

  test("takes the session's own list", async () => {
    await using session = engine.session()
    await session.sync(PROMPT)
    await session.evaluate(session.tokens, () => undefined)
    expect(session.tokens).toEqual(PROMPT)
    // evaluate keeps no logits: the last token is evaluated again
    const { evaluated, logits } = await sync(session, session.tokens)
    expect(evaluated).toBe(1)
    expect(logits).toEqual(await fresh(PROMPT))
  })

  test('of no tokens is refused', async () => {
    await using session = engine.session()
    expect(await codeOf(session.sync([]))).toBe('ERR_ARGUMENT')
  })
})

describe('truncate', () => {
  test('forgets what is behind, and the session goes on from there', async () => {
    await using session = engine.session()
    await session.sync(PROMPT)
    session.truncate(33)
    expect(session.tokens).toEqual(PROMPT.slice(0, 33))
    session.truncate(100)
    expect(session.tokens.length).toBe(33)
    expect((await session.decode(PROMPT[33]!)).slice()).toEqual(await fresh(PROMPT.slice(0, 34)))
    session.truncate(0)
    expect(session.tokens).toEqual([])
  })

  test.each([-1, 1.5, Number.NaN])('to %d tokens is refused', async (length) => {
    await using session = engine.session()
    await session.sync(PROMPT.slice(0, 4))
    expect(() => session.truncate(length)).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }))
    expect(session.tokens.length).toBe(4)
  })
})

describe('evaluate', () => {
  test('tells the logits of every position once, in order', async () => {
    await using session = engine.session()
    const seen: number[] = []
    await session.evaluate(PROMPT, (index) => void seen.push(index))
    expect(seen).toEqual(PROMPT.map((_, index) => index))
    await session.evaluate([], () => seen.push(-1))
    expect(seen).not.toContain(-1)
    expect(session.tokens).toEqual([])
  })

  test('what a callback throws comes back as it is, and the session can be used again', async () => {
    await using session = engine.session()
    const mine = new Error('mine')
    const fail = (): never => {
      throw mine
    }
    await expect(session.evaluate(PROMPT, fail)).rejects.toBe(mine)
    await expect(session.sync(PROMPT, { onProgress: fail })).rejects.toBe(mine)
    expect((await session.sync(PROMPT)).slice()).toEqual(await fresh(PROMPT))
  })
})

describe('the pool of blocks', () => {
  test('is whole again after every session is closed', async () => {
    // 512 tokens of cache, 128 a session: four full sessions, again and again
    for (let round = 0; round < 3; round++) {
      const sessions = Array.from({ length: 4 }, () => engine.session())
      await Promise.all(sessions.map((session, index) => session.sync(someTokens(128, index))))
      expect(sessions.every(({ tokens }) => tokens.length === 128)).toBe(true)
      await Promise.all(sessions.map((session) => session.close()))
    }
  })
})
