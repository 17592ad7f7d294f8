/** The numbers do not depend on how the work is cut: into threads, arenas, micro-batches, or single tokens. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type LoadOptions, loadModel, planModel } from '../../../src/engine/load-model.ts'
import { definePipeline } from '../../../src/pipeline/define.ts'
import { allLogits, type MicroModel, microModel, nmse, SMALL, someTokens } from '../../fixtures/engine-micro.ts'
import { wholeOnPool } from '../../fixtures/engine-models.ts'

/** Crosses blocks of the KV cache (32) and tiles of the attention (8), and fits neither. */
const TOKENS = someTokens(75)

let model: MicroModel
let reference: Float32Array[]

async function logitsWith(options: LoadOptions, path = model.path): Promise<Float32Array[]> {
  await using engine = await loadModel(path, { ...SMALL, ...options })
  return await allLogits(engine, TOKENS)
}

const worst = (ours: readonly Float32Array[]): number => Math.max(...ours.map((row, index) => nmse(row, reference[index]!)))

beforeAll(async () => {
  model = await microModel()
  reference = await logitsWith({ threads: 1 })
})
afterAll(() => model[Symbol.asyncDispose]())

describe('logits', () => {
  test('are finite and differ from position to position', () => {
    expect(reference.length).toBe(TOKENS.length)
    expect(reference.every((row) => row.every(Number.isFinite))).toBe(true)
    expect(nmse(reference[1]!, reference[0]!)).toBeGreaterThan(0.01)
  })

  test.each([2, 3, 7])('are the same to the bit with %i threads', async (threads) => {
    expect(await logitsWith({ threads })).toEqual(reference)
  })

  test.each([1, 7, 32, 128])('are the same to the bit with micro-batches of %i tokens', async (ubatch) => {
    expect(await logitsWith({ ubatch, sequences: 1, kvTokens: 256 })).toEqual(reference)
  })

  test('are the same to the bit with activations of 16 bits, which are other numbers', async () => {
    const finer = await logitsWith({ threads: 1, activations: 'q16' })
    expect(finer).not.toEqual(reference)
    for (const options of [{ threads: 3 }, ...[1, 7, 128].map((ubatch) => ({ ubatch, sequences: 1, kvTokens: 256 }))]) {
      expect(await logitsWith({ ...options, activations: 'q16' })).toEqual(finer)
    }
  })

  test.each([1, 2, 4])('are the same to the bit with %i steps in flight', async (ringDepth) => {
    const pipeline = definePipeline({ name: 'deep', executor: 'wasm', ringDepth })
    await using engine = await loadModel(model.path, { ...SMALL, ubatch: 4, pipeline })
    await using session = engine.session()
    // prompt steps without logits follow each other in the ring without waiting for the engine
    const last = await session.sync(TOKENS)
    expect(last).toEqual(reference.at(-1))
  })

  test('are the same to the bit over many small arenas, experts of one layer spread', async () => {
    const options = { ubatch: 8, contextTokens: 96, sequences: 1, kvTokens: 96, outputs: 8 }
    const { plan: whole } = await planModel(model.path, { ...SMALL, ...options })
    const arenaBytes = wholeOnPool(whole).arena.end + 1_300_000
    const { plan, programs } = await planModel(model.path, { ...SMALL, ...options, arenaBytes })
    const { arenas, layers } = wholeOnPool(plan)
    expect(arenas.length).toBeGreaterThan(2)
    expect(programs.wasm!.calls.some(({ stage }) => stage === 'transfer')).toBe(true)
    expect(layers.some(({ routed }) => routed.length > 1)).toBe(true)
    expect(await logitsWith({ ...options, arenaBytes })).toEqual(reference)
  })

  test('of token-by-token decode are those of one-shot prefill', async () => {
    await using engine = await loadModel(model.path, { ...SMALL, ubatch: 128 })
    await using session = engine.session()
    const decoded = [(await session.sync(TOKENS.slice(0, 1))).slice()]
    for (const token of TOKENS.slice(1)) decoded.push((await session.decode(token)).slice())
    expect(worst(decoded)).toBeLessThanOrEqual(1e-5)
    await using fresh = engine.session()
    expect(nmse(await fresh.sync(TOKENS), decoded.at(-1)!)).toBeLessThanOrEqual(1e-5)
  })
})
