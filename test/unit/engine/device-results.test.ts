/** Where the stages run must not show in the numbers: the pool alone, a device with the pool, and a device alone. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startDeviceExecutor } from '../../../src/engine/device-executor.ts'
import { Engine } from '../../../src/engine/engine.ts'
import { deviceOptions, loadModel, type LoadOptions, planModel } from '../../../src/engine/load-model.ts'
import { definePipeline } from '../../../src/pipeline/define.ts'
import { POCKET_MODEL } from '../../../src/pocket-model.ts'
import { allLogits, FLOAT_NMSE, greedy, type MicroModel, microModel, nmse, SMALL, someTokens } from '../../fixtures/engine-micro.ts'
import { hasDevice } from '../../fixtures/stand-in.ts'

const TOKENS = someTokens(75)

/**
 * Where activations become 8-bit records, a value halfway between two of them may fall to either side, in some row sooner or later. All rows together
 * differ by 9e-6 then, single ones by more.
 */
const QUANTIZED_NMSE = 1e-4

/** With records of 16 bits it hardly matters to which side: what is left comes from a device's f16 cache, as with float weights. */
const FINE_NMSE = 1e-6

const POCKET: LoadOptions = { contextTokens: 256, ubatch: 64, sequences: 2, kvTokens: 512, threads: 2 }

let model: MicroModel
let reference: Float32Array[]

async function logitsWith(options: LoadOptions): Promise<Float32Array[]> {
  await using engine = await loadModel(model.path, { ...SMALL, ...options })
  return await allLogits(engine, TOKENS)
}

const worst = (ours: readonly Float32Array[]): number => Math.max(...ours.map((row, index) => nmse(row, reference[index]!)))

beforeAll(async () => {
  model = await microModel({ format: 'F16', expertFormat: 'F16' })
  reference = await logitsWith({ pipeline: 'cpu' })
})
afterAll(() => model[Symbol.asyncDispose]())

describe.skipIf(!hasDevice).each(['hybrid', 'gpu'])('pipeline %s', (pipeline) => {
  test('has the logits of the pool', async () => {
    expect(worst(await logitsWith({ pipeline }))).toBeLessThanOrEqual(FLOAT_NMSE)
  })

  test.each([1, 7, 32])('in micro-batches of %i tokens', async (ubatch) => {
    const logits = await logitsWith({ pipeline, ubatch, sequences: 1, kvTokens: 256 })
    expect(worst(logits)).toBeLessThanOrEqual(FLOAT_NMSE)
  })

  test('token by token', async () => {
    await using engine = await loadModel(model.path, { ...SMALL, pipeline })
    await using session = engine.session()
    const decoded = [(await session.sync(TOKENS.slice(0, 1))).slice()]
    for (const token of TOKENS.slice(1)) decoded.push((await session.decode(token)).slice())
    expect(worst(decoded)).toBeLessThanOrEqual(FLOAT_NMSE)
  })

  test('decodes from a graph from the second step of a kind on', async () => {
    const planned = await planModel(model.path, { ...SMALL, pipeline })
    const executor = await startDeviceExecutor(deviceOptions(planned, SMALL))
    const engine = new Engine({ ...planned, executor })
    const session = engine.session()
    await session.sync(someTokens(5))
    for (const token of someTokens(10)) await session.decode(token)
    await engine.close()
    expect(await executor.cuda.stats()).toEqual({ steps: 11, graphSteps: 9 })
  })

  test('from several sessions at once, of different lengths', async () => {
    await using engine = await loadModel(model.path, { ...SMALL, pipeline })
    await using cpu = await loadModel(model.path, SMALL)
    const prompts = [3, 40, 64, 90].map((length, seed) => someTokens(length, seed + 2))
    const ours = await Promise.all(prompts.map((prompt) => greedy(engine, prompt, 12)))
    const theirs = await Promise.all(prompts.map((prompt) => greedy(cpu, prompt, 12)))
    expect(ours).toEqual(theirs)
  })

  test('continues a prompt of the pocket model as the pool does', async () => {
    const answers: string[] = []
    for (const each of ['cpu', pipeline]) {
      await using engine = await loadModel(POCKET_MODEL, { ...POCKET, pipeline: each })
      const { text } = await engine.generate('Sort these letters: d b a c', { maxTokens: 32, temperature: 0 })
      answers.push(text)
    }
    expect(answers[0]).not.toBe('')
    expect(answers[1]).toBe(answers[0])
  })

  test.each([
    { bound: QUANTIZED_NMSE },
    { activations: 'q16' as const, bound: FINE_NMSE },
    { activations: 'q16' as const, ubatch: 3, bound: FINE_NMSE },
    { activations: 'q16' as const, arenaBytes: 6 << 20, bound: FINE_NMSE },
  ])('has the logits of the pool with the quantised weights of the pocket model, %j', async ({ bound, ...options }) => {
    const text = 'Sort these letters: d b a c. What is 12 + 30? Write the word stone backwards.'
    const results: number[][] = []
    for (const each of ['cpu', pipeline]) {
      await using engine = await loadModel(POCKET_MODEL, { ...POCKET, ubatch: 16, ...options, pipeline: each })
      const rows = await allLogits(engine, engine.tokenizer.encode(text))
      results.push(rows.flatMap((row) => [...row]))
    }
    expect(nmse(results[1]!, results[0]!)).toBeLessThanOrEqual(bound)
  })

  test('loads every byte and says so', async () => {
    const seen: [number, number][] = []
    await using _ = await loadModel(model.path, { ...SMALL, pipeline, onProgress: ({ done, total }) => void seen.push([done, total]) })
    const [done, total] = seen.at(-1)!
    expect(done).toBe(total)
    expect(total).toBeGreaterThan(1e6)
  })
})

describe.skipIf(!hasDevice)('a plan of both', () => {
  test.each([1, 2])("has the pool's logits with the experts of %i layers on the device", async (gpuExpertLayers) => {
    expect(worst(await logitsWith({ pipeline: 'hybrid', gpuExpertLayers }))).toBeLessThanOrEqual(FLOAT_NMSE)
  })

  test('has them without overlap too, and with several steps in flight', async () => {
    const pipeline = definePipeline({ name: 'deep', executor: 'cuda', stages: { routedExperts: 'wasm' }, ringDepth: 4, overlap: false })
    expect(worst(await logitsWith({ pipeline, ubatch: 4 }))).toBeLessThanOrEqual(FLOAT_NMSE)
    await using engine = await loadModel(model.path, { ...SMALL, ubatch: 4, pipeline })
    await using session = engine.session()
    expect(nmse(await session.sync(TOKENS), reference.at(-1)!)).toBeLessThanOrEqual(FLOAT_NMSE)
  })

  test('has them with experts spread over several arenas', async () => {
    expect(worst(await logitsWith({ pipeline: 'hybrid', arenaBytes: 4 << 20 }))).toBeLessThanOrEqual(FLOAT_NMSE)
  })
})
