/** Sessions that share steps get what they would have got alone. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Engine } from '../../../src/engine/engine.ts'
import { loadModel } from '../../../src/engine/load-model.ts'
import { codeOf, greedy, type MicroModel, microModel, someTokens } from '../../fixtures/engine-micro.ts'

const SESSIONS = 32
const TOKENS = 12

let model: MicroModel
let engine: Engine
let alone: number[][]

/** Prompts of 1 to 63 tokens. */
const prompts = Array.from({ length: SESSIONS }, (_, index) => someTokens(1 + index * 2, index))

beforeAll(async () => {
  model = await microModel()
  engine = await loadModel(model.path, { contextTokens: 128, kvTokens: 128 * SESSIONS, sequences: SESSIONS, ubatch: 48, threads: 2 })
  alone = []
  for (const prompt of prompts) alone.push(await greedy(engine, prompt, TOKENS))
})
afterAll(async () => {
  await engine.close()
  await model[Symbol.asyncDispose]()
})

describe('many sessions', () => {
  test('32 at once give the tokens that each gives alone', async () => {
    expect(new Set(alone.map(String)).size).toBeGreaterThan(SESSIONS / 2)
    expect(await Promise.all(prompts.map((prompt) => greedy(engine, prompt, TOKENS)))).toEqual(alone)
  })

  test('there are as many as the limit says, and one that is closed makes room', async () => {
    const sessions = Array.from({ length: SESSIONS }, () => engine.session())
    expect(() => engine.session()).toThrow(expect.objectContaining({ code: 'ERR_KV_EXHAUSTED' }))
    await sessions[0]!.close()
    sessions[0] = engine.session()
    for (const session of sessions) await session.close()
  })

  test('those that are aborted, closed or run out of cache do not disturb the others', async () => {
    const controller = new AbortController()
    const aborted = engine.session()
    const closed = engine.session()
    const codes = Promise.all([
      codeOf(aborted.sync(someTokens(120, 77), { signal: controller.signal, onProgress: () => controller.abort() })),
      codeOf(closed.sync(someTokens(120, 78), { onProgress: () => void closed.close() })),
    ])
    const others = prompts.slice(0, 8).map((prompt) => greedy(engine, prompt, TOKENS))
    expect(await Promise.all(others)).toEqual(alone.slice(0, 8))
    expect(await codes).toEqual(['ERR_ABORTED', 'ERR_CLOSED'])
    // what was evaluated before the abort is kept, and can be gone on from
    expect(aborted.tokens.length).toBeGreaterThan(0)
    expect(aborted.tokens.length).toBeLessThan(120)
    await aborted.sync(someTokens(120, 77))
    await aborted.close()
  })
})
