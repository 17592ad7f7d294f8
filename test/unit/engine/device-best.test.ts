/** Generation with a device that tells the best logits alone: the same tokens as from all logits, and all logits for who asks for them. */
import { open } from 'node:fs/promises'
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { type DeviceExecutor, startDeviceExecutor } from '../../../src/engine/device-executor.ts'
import { Engine } from '../../../src/engine/engine.ts'
import { deviceOptions, loadModel, type LoadOptions, planModel } from '../../../src/engine/load-model.ts'
import { openModelFile } from '../../../src/gguf/open.ts'
import type { SamplingOptions } from '../../../src/sampling/options.ts'
import { createSampler } from '../../../src/sampling/sampler.ts'
import { codeOf, greedy, type MicroModel, microModel, SMALL, someTokens, VOCABULARY } from '../../fixtures/engine-micro.ts'
import { hasDevice } from '../../fixtures/stand-in.ts'

const PROMPT = someTokens(20)
const TOKENS = 8

/** Settings, and how many of the best logits they are content with; 0: they want all. */
const SETTINGS: readonly (readonly [SamplingOptions, number])[] = [
  [{}, 1],
  [{ temperature: 3, topK: 1 }, 1],
  [{ temperature: 3, topK: 7 }, 7],
  [{ temperature: 2, topK: 40, topP: 0.9, minP: 0.01 }, 40],
  [{ temperature: 5, topK: 64 }, 64],
  [{ temperature: 5, topK: 65 }, 0],
  [{ temperature: 2 }, 0],
  [{ temperature: 2, topP: 0.9, minP: 0.05 }, 0],
  [{ repetitionPenalty: 1.3 }, 0],
  [{ temperature: 2, topK: 40, repetitionPenalty: 1.3 }, 0],
]

/** Float weights: with them it does not matter how many tokens a step has. */
const SHAPE = { format: 'F16', expertFormat: 'F16', layers: 2 } as const

let model: MicroModel
beforeAll(async () => {
  model = await microModel(SHAPE)
})
afterAll(() => model[Symbol.asyncDispose]())

/** The last bits depend on how many tokens a step has, on a GPU. */
function expectNear(actual: Float32Array, expected: Float32Array | readonly number[]): void {
  expect(actual.length).toBe(expected.length)
  expect(Math.max(...actual.map((value, index) => Math.abs(value - expected[index]!)))).toBeLessThan(1e-3)
}

/** An engine whose reads are noted: rows of all logits, and how many of the best each time. */
interface Noted {
  readonly engine: Engine
  readonly executor: DeviceExecutor
  readonly read: { all: number; best: number[] }
}

/** Loads as `loadModel` does. */
async function start(pipeline: string): Promise<Noted> {
  const options: LoadOptions = { ...SMALL, pipeline, sequences: SETTINGS.length, kvTokens: 2048 }
  const planned = await planModel(model.path, options)
  const executor = await startDeviceExecutor(deviceOptions(planned, options))
  const read = { all: 0, best: [] as number[] }
  const logits = executor.logits.bind(executor)
  const best = executor.best.bind(executor)
  vi.spyOn(executor, 'logits').mockImplementation((row) => {
    read.all++
    return logits(row)
  })
  vi.spyOn(executor, 'best').mockImplementation((row, count) => {
    read.best.push(count)
    return best(row, count)
  })
  return { engine: new Engine({ ...planned, executor }), executor, read }
}

/** As `generate` does it, but with all logits. */
async function fromAll(engine: Engine, prompt: readonly number[], options: SamplingOptions): Promise<number[]> {
  const sampler = createSampler(options)
  await using session = engine.session()
  const tokens: number[] = []
  let logits = await session.sync(prompt)
  for (;;) {
    const token = sampler.sample(logits, session.tokens)
    if (engine.tokenizer.endOfGeneration.has(token)) return tokens
    tokens.push(token)
    if (tokens.length === TOKENS) return tokens
    logits = await session.decode(token)
  }
}

async function generated(engine: Engine, prompt: readonly number[], options: SamplingOptions): Promise<number[]> {
  await using session = engine.session()
  const tokens: number[] = []
  for await (const { token } of session.generate(prompt, { ...options, maxTokens: TOKENS })) if (token !== undefined) tokens.push(token)
  return tokens
}

/** Every setting in a session of its own, all at the same time. */
const together = (engine: Engine, settings: typeof SETTINGS): Promise<number[][]> =>
  Promise.all(settings.map((setting) => generated(engine, promptOf(setting), { ...setting[0], seed: 9 })))

const promptOf = (setting: (typeof SETTINGS)[number]): number[] => {
  const index = SETTINGS.indexOf(setting)
  return someTokens(5 + index, index)
}

describe.skipIf(!hasDevice).each(['hybrid', 'gpu'])('pipeline %s', (pipeline) => {
  test('a batch of different settings gives each the tokens it gets alone', async () => {
    const { engine, read } = await start(pipeline)
    await using _ = engine
    const alone = new Map<(typeof SETTINGS)[number], number[]>()
    for (const setting of SETTINGS) alone.set(setting, await fromAll(engine, promptOf(setting), { ...setting[0], seed: 9 }))
    const content = SETTINGS.filter(([, count]) => count > 0)
    for (const settings of [SETTINGS, content]) {
      read.all = read.best.length = 0
      expect(await together(engine, settings)).toEqual(settings.map((setting) => alone.get(setting)))
    }
    expect(read.all).toBe(0)
    expect(new Set(read.best)).toEqual(new Set([1, 7, 40, 64]))
  })
})

describe.skipIf(!hasDevice)('a device', () => {
  const pipeline = 'gpu'
  let engine: Engine
  let read: Noted['read']
  beforeAll(async () => {
    const noted = await start(pipeline)
    engine = noted.engine
    read = noted.read
  })
  afterAll(() => engine.close())
  beforeEach(() => void (read.all = read.best.length = 0))

  test.each(SETTINGS)('%o: the tokens of all logits, over seeds', async (options, count) => {
    for (const seed of options.temperature === undefined ? [1] : [1, 2]) {
      const expected = await fromAll(engine, PROMPT, { ...options, seed })
      read.all = read.best.length = 0
      expect(await generated(engine, PROMPT, { ...options, seed })).toEqual(expected)
      if (count === 0) expect(read.best).toEqual([])
      else expect(read).toEqual({ all: 0, best: read.best.map(() => count) })
      expect(read.all + read.best.length).toBeGreaterThanOrEqual(expected.length)
    }
  })

  test('all logits are there for who asks after a generation, by evaluating its last token again', async () => {
    await using session = engine.session()
    const tokens: number[] = []
    for await (const { token } of session.generate(PROMPT, { maxTokens: 4 })) if (token !== undefined) tokens.push(token)
    expect(read.all).toBe(0)
    const held = [...session.tokens]
    expect(held).toEqual([...PROMPT, ...tokens.slice(0, -1)])
    let evaluated = 0
    const logits = await session.sync(held, { onProgress: (done) => void (evaluated = done) })
    expect(evaluated).toBe(1)
    expect(session.tokens).toEqual(held)
    await using other = engine.session()
    expectNear(logits, await other.sync(held.slice(0, -1)).then(() => other.decode(held.at(-1)!)))
    // what is at hand is not computed again, all logits least of all
    evaluated = 0
    expect(await session.syncBest(held, 3, { onProgress: (done) => void (evaluated = done) })).toBe(logits)
    expect(evaluated).toBe(0)
  })

  test('the best are kept for who is content with them', async () => {
    await using session = engine.session()
    const five = (await session.syncBest(PROMPT, 5)) as { ids: Int32Array; logits: Float32Array }
    expect(five.ids.length).toBe(5)
    expect(await session.syncBest(PROMPT, 2)).toBe(five)
    expect(read.best).toEqual([5])
    await session.syncBest(PROMPT, 6)
    expect(read.best).toEqual([5, 6])
    const all = await session.sync(PROMPT)
    expect([...five.ids]).toEqual([...all.keys()].sort((a, b) => all[b]! - all[a]! || a - b).slice(0, 5))
    expectNear(
      five.logits,
      [...five.ids].map((id) => all[id]!),
    )
    for (const count of [65, VOCABULARY, Infinity]) expect(await session.decodeBest(1, count)).toBeInstanceOf(Float32Array)
    for (const count of [0, -1, 1.5, Number.NaN]) {
      expect(await codeOf(session.syncBest(PROMPT, count))).toBe('ERR_ARGUMENT')
      expect(await codeOf(session.decodeBest(1, count))).toBe('ERR_ARGUMENT')
    }
  })

  test('a generation that is aborted leaves a session that goes on right', async () => {
    const expected = await greedy(engine, PROMPT, 6)
    await using session = engine.session()
    const controller = new AbortController()
    const aborted = (async () => {
      for await (const { token } of session.generate(PROMPT, { signal: controller.signal })) if (token !== undefined) controller.abort()
    })()
    expect(await codeOf(aborted)).toBe('ERR_ABORTED')
    const tokens: number[] = []
    for await (const { token } of session.generate(PROMPT, { maxTokens: 6 })) if (token !== undefined) tokens.push(token)
    expect(tokens).toEqual(expected)
  })

  test('a step from a graph is one for each kind of what is wanted', async () => {
    const { engine: own, executor } = await start(pipeline)
    const session = own.session()
    await session.sync(PROMPT)
    for (const count of [1, 1, 1, 5, 40, 64, Infinity, Infinity, 1]) await session.decodeBest(3, count)
    await own.close()
    // the first of each of three kinds is queued call by call
    expect(await executor.cuda.stats()).toEqual({ steps: 10, graphSteps: 6 })
  })

  test('a logit that is not finite is told, whatever is wanted', async () => {
    await using own = await microModel(SHAPE)
    const { offset, bytes } = (await openModelFile(own.path)).tensors.get('output.weight')!
    const handle = await open(own.path, 'r+')
    await handle.write(Uint8Array.of(0, 0x7e), 0, 2, offset + bytes - 2)
    await handle.close()
    await using damaged = await loadModel(own.path, { ...SMALL, pipeline })
    for (const options of [{}, { temperature: 1, topK: 5 }, { temperature: 1 }]) {
      expect(await codeOf(damaged.generate(PROMPT, options))).toBe('ERR_NOT_FINITE')
    }
    await using session = damaged.session()
    expect(await codeOf(session.syncBest(PROMPT, 1))).toBe('ERR_NOT_FINITE')
    expect(await codeOf(session.sync(PROMPT))).toBe('ERR_NOT_FINITE')
  })

  test('a trace changes nothing', async () => {
    await using traced = await loadModel(model.path, { ...SMALL, pipeline, trace: true })
    expect(await generated(traced, PROMPT, {})).toEqual(await greedy(engine, PROMPT, TOKENS))
  })
})
