/** A token with a long context is worked out in chunks of keys by several workers: the same bits as by one, and as in a prompt. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ATTENTION_CHUNK_TOKENS } from '../../../src/abi/kernels.ts'
import { loadModel } from '../../../src/engine/load-model.ts'
import { type MicroModel, microModel, SMALL, someTokens } from '../../fixtures/engine-micro.ts'

/** Two whole chunks when the last token is decoded, and a little. */
const PROMPT = 2 * ATTENTION_CHUNK_TOKENS - 2
const TOKENS = someTokens(PROMPT + 4)
const LIMITS = { ...SMALL, contextTokens: 640, kvTokens: 1280, sequences: 2, ubatch: 64 }

let model: MicroModel

beforeAll(async () => {
  model = await microModel()
})
afterAll(() => model[Symbol.asyncDispose]())

/** Logits after each token from the PROMPTth on, decoded by two sequences at once. */
async function decoded(threads: number): Promise<Float32Array[][]> {
  await using engine = await loadModel(model.path, { ...LIMITS, threads })
  const sequence = async (): Promise<Float32Array[]> => {
    await using session = engine.session()
    const rows = [(await session.sync(TOKENS.slice(0, PROMPT))).slice()]
    for (const token of TOKENS.slice(PROMPT)) rows.push((await session.decode(token)).slice())
    return rows
  }
  return await Promise.all([sequence(), sequence()])
}

describe('a context of more than one chunk', () => {
  test('gives the same bits with 1, 2 and 5 threads, and in a prompt', async () => {
    const [one] = await decoded(1)
    for (const threads of [2, 5]) expect(await decoded(threads)).toEqual([one, one])
    await using engine = await loadModel(model.path, { ...LIMITS, threads: 2 })
    for (const [index, row] of one!.entries()) {
      await using session = engine.session()
      expect((await session.sync(TOKENS.slice(0, PROMPT + index))).slice()).toEqual(row)
    }
  })
})
