/** Greedy generation on the pool, whose workers find the best logit: the same tokens as from all logits, and all logits for who asks for them. */
import { open } from 'node:fs/promises'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import type { BestLogits } from '../../../src/abi/step.ts'
import type { Engine } from '../../../src/engine/engine.ts'
import { loadModel } from '../../../src/engine/load-model.ts'
import { openModelFile } from '../../../src/gguf/open.ts'
import type { WasmExecutor } from '../../../src/wasm/executor.ts'
import { argMax, codeOf, greedy, type MicroModel, microModel, SMALL, someTokens, startParts } from '../../fixtures/engine-micro.ts'

const PROMPT = someTokens(20)
const TOKENS = 8

let model: MicroModel
beforeAll(async () => {
  model = await microModel({ layers: 2 })
})
afterAll(() => model[Symbol.asyncDispose]())

async function generated(engine: Engine, prompt: readonly number[], options: object = {}): Promise<number[]> {
  await using session = engine.session()
  const tokens: number[] = []
  for await (const { token } of session.generate(prompt, { maxTokens: TOKENS, ...options })) if (token !== undefined) tokens.push(token)
  return tokens
}

describe.each([1, 2, 3])('%i workers', (threads) => {
  let engine: Engine
  let executor: WasmExecutor
  beforeAll(async () => {
    ;({ engine, executor } = await startParts(model.path, { ...SMALL, threads }))
  })
  afterAll(() => engine.close())
  afterEach(() => void vi.restoreAllMocks())

  test('greedy generation reads no more than the best logits', async () => {
    const expected = await greedy(engine, PROMPT, TOKENS)
    const all = vi.spyOn(executor, 'logits')
    const best = vi.spyOn(executor, 'best')
    expect(await generated(engine, PROMPT)).toEqual(expected)
    expect(all).not.toHaveBeenCalled()
    expect(best).toHaveBeenCalledTimes(TOKENS)
  })

  test('several sequences of a step each get their own', async () => {
    const prompts = Array.from({ length: SMALL.sequences! }, (_, index) => someTokens(9 + index, index))
    const expected: number[][] = []
    for (const prompt of prompts) expected.push(await greedy(engine, prompt, TOKENS))
    const all = vi.spyOn(executor, 'logits')
    expect(await Promise.all(prompts.map((prompt) => generated(engine, prompt)))).toEqual(expected)
    expect(all).not.toHaveBeenCalled()
    // one that wants all logits makes the others take them too
    const [first] = await Promise.all([generated(engine, prompts[0]!), generated(engine, prompts[1]!, { temperature: 2, seed: 1 })])
    expect(first).toEqual(expected[0])
    expect(all).toHaveBeenCalled()
  })

  test('the best logit and all logits of one position agree, whichever was asked for first', async () => {
    await using session = engine.session()
    const { ids, logits } = (await session.syncBest(PROMPT, 1)) as BestLogits
    expect([ids.length, logits.length]).toEqual([1, 1])
    const all = await session.sync(PROMPT)
    expect([ids[0], logits[0]]).toEqual([argMax(all), all[argMax(all)]])
    expect(await session.syncBest(PROMPT, 1)).toBe(all)
    expect(await session.decodeBest(7, 2)).toBeInstanceOf(Float32Array)
  })
})

test('a profile changes nothing', async () => {
  await using engine = await loadModel(model.path, { ...SMALL, profile: true })
  expect(await generated(engine, PROMPT)).toEqual(await greedy(engine, PROMPT, TOKENS))
})

test('a logit that is not finite is told', async () => {
  await using own = await microModel({ format: 'F32', layers: 2 })
  const { offset, bytes } = (await openModelFile(own.path)).tensors.get('output.weight')!
  const handle = await open(own.path, 'r+')
  // the last row: the largest f32 there is, whose products overflow
  await handle.write(new Uint8Array(new Uint32Array(256).fill(0x7f7fffff).buffer), 0, 1024, offset + bytes - 1024)
  await handle.close()
  await using damaged = await loadModel(own.path, SMALL)
  await using session = damaged.session()
  expect(await codeOf(session.syncBest(PROMPT, 1))).toBe('ERR_NOT_FINITE')
  expect(await codeOf(session.sync(PROMPT))).toBe('ERR_NOT_FINITE')
  expect(await codeOf(generated(damaged, PROMPT))).toBe('ERR_NOT_FINITE')
})
