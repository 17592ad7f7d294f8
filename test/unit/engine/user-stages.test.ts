/** User stages, wherever the model runs: what they see, what they change, and what becomes of their failures. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Engine } from '../../../src/engine/engine.ts'
import { loadModel, type LoadOptions } from '../../../src/engine/load-model.ts'
import { definePipeline, type PipelineOptions } from '../../../src/pipeline/define.ts'
import type { StepView, UserStageContext, UserStageOptions, ViewArrays } from '../../../src/pipeline/user-stage.ts'
import { allLogits, argMax, codeOf, type MicroModel, microModel, nmse, SMALL, someTokens } from '../../fixtures/engine-micro.ts'
import { hasDevice } from '../../fixtures/stand-in.ts'

const MODULE = new URL('../../fixtures/user-functions.ts', import.meta.url)

type Stage = Omit<UserStageOptions, 'module' | 'name'> & { readonly name?: string }

/** A stage of the fixture's functions, named after its function unless it says otherwise. */
const stage = (options: Stage): UserStageOptions =>
  ({ name: options.export ?? '', whenFull: 'wait', module: MODULE, ...options }) as UserStageOptions

let model: MicroModel
beforeAll(async () => {
  model = await microModel()
})
afterAll(() => model[Symbol.asyncDispose]())

type Echo = StepView & ViewArrays & UserStageContext

const PIPELINES: readonly Pick<PipelineOptions, 'name' | 'executor' | 'stages'>[] = [
  { name: 'cpu', executor: 'wasm' },
  { name: 'hybrid', executor: 'cuda', stages: { routedExperts: 'wasm' } },
  { name: 'gpu', executor: 'cuda' },
]

describe.each(PIPELINES.filter(({ executor }) => executor === 'wasm' || hasDevice))('pipeline $name', (where) => {
  const load = (userStages: readonly UserStageOptions[], options: LoadOptions = {}): Promise<Engine> =>
    loadModel(model.path, { ...SMALL, ...options, pipeline: definePipeline({ ...where, userStages }) })

  describe.each([1, 3])('with %i workers', (threads) => {
    test('observers see the step, typed and whole, at every layer that they ask for', async () => {
      const stages = [
        stage({ after: 'router', export: 'echo', name: 'router', data: { a: 1 } }),
        stage({ before: 'attention', export: 'echo', name: 'x', layers: [1] }),
        stage({ after: 'head', export: 'echo', name: 'logits' }),
      ]
      await using engine = await load(stages, { threads })
      const { hidden, experts, expertsUsed, vocabulary } = engine.model.hyper
      const tokens = someTokens(40)
      await using session = engine.session()
      const logits = (await session.sync(tokens)).slice()

      const routed = await engine.userStage<Echo>('router').collect()
      // two steps of at most 32 tokens, each through all layers with experts
      const sparse = engine.model.layers.filter(({ router }) => router).map(({ index }) => index)
      expect(routed.map(({ step, layer }) => [step, layer])).toEqual([1, 2].flatMap((step) => sparse.map((layer) => [step, layer])))
      const [first] = routed
      expect(first!.value.shape).toEqual({ hidden, vocabulary, experts, expertsUsed })
      expect(first!.value).toMatchObject({ name: 'router', data: { a: 1 } })
      expect([...first!.value.tokens]).toEqual(tokens.slice(0, 32))
      expect([...routed.at(-1)!.value.positions]).toEqual([32, 33, 34, 35, 36, 37, 38, 39])
      expect(routed.at(-1)!.value.runs).toEqual([{ first: 0, count: 8 }])
      for (const { value } of routed) {
        expect(value.expertIds.length).toBe(value.tokens.length * expertsUsed)
        expect(value.expertIds.every((id) => id >= 0 && id < experts)).toBe(true)
        expect(value.expertWeights.every((weight) => weight > 0)).toBe(true)
      }
      const x = await engine.userStage<Echo>('x').collect()
      expect(x.map(({ layer }) => layer)).toEqual([1, 1])
      expect(x[0]!.value.x.length).toBe(32 * hidden)
      const heads = await engine.userStage<Echo>('logits').collect()
      expect(heads.map(({ value }) => [...value.outputs])).toEqual([[], [7]])
      expect(heads[1]!.value.logits).toEqual(logits)
      expect(await engine.userStage('router').collect()).toEqual([])
    })

    test('an observer and a steerer that changes nothing leave the results as they are, bit by bit', async () => {
      const points = ['attention', 'router', 'sharedExperts', 'routedExperts', 'combine', 'head'] as const
      const stages = points.flatMap((point) => [
        stage({ before: point, export: 'touch', name: `before ${point}`, steer: true }),
        stage({ after: point, export: 'echo', name: `after ${point}` }),
      ])
      await using plain = await load([], { threads })
      await using engine = await load(stages, { threads })
      const tokens = someTokens(50)
      expect(await allLogits(engine, tokens)).toEqual(await allLogits(plain, tokens))
      const sparse = engine.model.layers.filter(({ router }) => router).length
      const touched = await engine.userStage<number>('before combine').collect()
      expect(touched.length % sparse).toBe(0)
      expect(new Set(touched.map(({ value }) => value)).size).toBe(sparse)
    })

    test('a steerer changes the answer', async () => {
      await using plain = await load([], { threads })
      const tokens = someTokens(20)
      const expected = await allLogits(plain, tokens)
      await using favouring = await load([stage({ after: 'head', export: 'favour', steer: true, data: { token: 77 } })], { threads })
      const favoured = await allLogits(favouring, tokens)
      for (const [index, row] of favoured.entries()) {
        expect(argMax(row)).toBe(77)
        row[77] = expected[index]![77]!
        expect(row).toEqual(expected[index])
      }
      await using session = favouring.session()
      const generated: (number | undefined)[] = []
      for await (const { token } of session.generate(tokens, { maxTokens: 3 })) generated.push(token)
      expect(generated.slice(0, 3)).toEqual([77, 77, 77])
      await using muted = await load([stage({ after: 'router', export: 'mute', steer: true })], { threads })
      await using doubled = await load([stage({ before: 'attention', layers: [0], export: 'double', steer: true })], { threads })
      for (const engine of [muted, doubled]) {
        const error = nmse((await allLogits(engine, tokens)).at(-1)!, expected.at(-1)!)
        expect(error).toBeGreaterThan(1e-4)
      }
    })
  })

  test.skipIf(where.name === 'gpu')('user stages see the arena that their layer is in, when a model needs several', async () => {
    const stages = [
      stage({ before: 'routedExperts', export: 'mute', steer: true }),
      stage({ after: 'routedExperts', export: 'echo', name: 'sum' }),
      stage({ before: 'head', export: 'echo', name: 'x' }),
    ]
    const read = async (options: LoadOptions): Promise<{ logits: Float32Array[]; sums: Float32Array[]; arenas: number }> => {
      await using engine = await load(stages, options)
      const logits = await allLogits(engine, someTokens(20))
      const sums = (await engine.userStage<Echo>('sum').collect()).map(({ value }) => value.routed)
      return { logits, sums, arenas: engine.plan.wasm!.arenas.length }
    }
    const one = await read({})
    const several = await read({ arenaBytes: where.name === 'cpu' ? 5_000_000 : 4 << 20 })
    expect([one.arenas, several.arenas > 1]).toEqual([1, true])
    expect(several.logits).toEqual(one.logits)
    expect(one.sums.every((sum) => sum.every((value) => value === 0))).toBe(true)
    expect(several.sums).toEqual(one.sums)
  })

  describe('a function that fails', () => {
    // before the shared experts, a hand-off to the pool is under way
    test.each(['attention', 'sharedExperts', 'routedExperts'] as const)(
      'in line (before %s) fails the step alone, and says where',
      async (before) => {
        await using engine = await load([stage({ before, layers: [1], export: 'failAt', steer: true, data: 2 })])
        const session = engine.session()
        await session.sync(someTokens(10))
        await expect(session.decode(5)).rejects.toMatchObject({
          code: 'ERR_USER_STAGE',
          message: "user stage 'failAt' failed at layer 1: on purpose",
        })
        await using plain = await load([])
        await using other = plain.session()
        expect(await session.sync([...someTokens(10), 5, 6])).toEqual(await other.sync([...someTokens(10), 5, 6]))
        expect((await engine.userStage<number>('failAt').collect()).map(({ value }) => value)).toEqual([1, 3])
      },
    )

    test('in line in the middle of a prompt', async () => {
      const everywhere = ['attention', 'router', 'sharedExperts', 'combine'] as const
      const watching = everywhere.map((before) => stage({ before, export: 'touch', name: before, steer: true }))
      await using engine = await load([...watching, stage({ before: 'sharedExperts', export: 'failAt', steer: true, data: 2 })])
      const session = engine.session()
      expect(await codeOf(session.sync(someTokens(90)))).toBe('ERR_USER_STAGE')
      // the step before is there, and nobody is asked once a step has failed
      expect(session.tokens.length).toBe(32)
      const layersOf = async (name: string): Promise<(number | undefined)[]> =>
        (await engine.userStage(name).collect()).flatMap(({ step, layer }) => (step === 2 ? [layer] : []))
      const first = engine.model.layers.findIndex(({ router }) => router)
      expect(await layersOf('sharedExperts')).toEqual([first])
      expect(await layersOf('combine')).toEqual([])
      await using plain = await load([])
      await using other = plain.session()
      expect(await session.sync(someTokens(90))).toEqual(await other.sync(someTokens(90)))
    })

    test('in line behind the last stage, with several sequences', async () => {
      await using engine = await load([stage({ after: 'head', export: 'failAt', steer: true, data: 1 })])
      const failed = await Promise.all([1, 2].map((seed) => codeOf(engine.session().sync(someTokens(10, seed)))))
      expect(failed).toEqual(['ERR_USER_STAGE', 'ERR_USER_STAGE'])
      expect(await codeOf(engine.session().sync([1, 2]))).toBe('did not reject')
    })

    test.each(['failAt', 'uncloneable', 'die'])('as an observer (%s) is told by collect, and the engine works on', async (name) => {
      await using engine = await load([stage({ after: 'router', export: name, data: 1 })])
      const session = engine.session()
      await session.sync(someTokens(10))
      expect(await codeOf(engine.userStage(name).collect())).toBe(name === 'die' ? 'ERR_WORKER_DIED' : 'ERR_USER_STAGE')
      await session.decode(3)
      await session.decode(4)
      expect(engine.userStage(name).dropped).toBeGreaterThan(0)
    })

    test.each([
      ['an absent module', { after: 'router', module: '/nowhere/absent.mjs' }],
      ['an absent export', { after: 'router', export: 'absent' }],
      ['no function', { after: 'router', export: 'notAFunction', steer: true }],
      ['an absent module in line', { after: 'router', module: '/nowhere/absent.mjs', steer: true }],
    ])('to be imported fails the load: %s', async (_, options) => {
      expect(await codeOf(load([{ name: 'mine', module: MODULE, ...options } as UserStageOptions]))).toBe('ERR_USER_STAGE')
    })

    test.each([
      ['stall', 'ERR_TIMEOUT'],
      ['die', 'ERR_WORKER_DIED'],
    ])('by never coming back (%s) fails the engine, which closes', async (name, code) => {
      const engine = await load([stage({ before: 'head', export: name, steer: true })], { deadlineMs: 5000 })
      expect(await codeOf(engine.session().sync([1, 2]))).toBe(code)
      expect(() => engine.session()).toThrow(expect.objectContaining({ code }))
      const start = performance.now()
      await engine.close()
      expect(performance.now() - start).toBeLessThan(8000)
    })

    test('by never coming back does not keep the engine from being closed', async () => {
      const engine = await load([stage({ after: 'router', export: 'stall', steer: true })])
      const pending = codeOf(engine.session().sync([1, 2]))
      await new Promise((resolve) => setTimeout(resolve, 200))
      const start = performance.now()
      await engine.close()
      expect(performance.now() - start).toBeLessThan(8000)
      expect(await pending).toBe('ERR_CLOSED')
    })

    test('by being async in line', async () => {
      await using engine = await load([stage({ after: 'router', export: 'dawdle', steer: true, data: 1 })])
      await expect(engine.session().sync([1])).rejects.toMatchObject({ message: /must not be async/ })
    })
  })

  describe('an observer that is slower than the model', () => {
    const slow = (more: Partial<UserStageOptions>): UserStageOptions =>
      ({ ...stage({ after: 'head', export: 'dawdle', data: 15, queue: 1 }), ...more }) as UserStageOptions

    const decode = async (engine: Engine, count: number): Promise<void> => {
      await using session = engine.session()
      for (let token = 1; token <= count; token++) await session.decode(token)
    }

    test('loses calls and counts them, unless it wants all', async () => {
      await using dropping = await load([slow({ whenFull: 'drop' })])
      await decode(dropping, 12)
      const results = dropping.userStage('dawdle')
      const { length } = await results.collect()
      expect(length).toBeGreaterThan(0)
      expect(length + results.dropped).toBe(12)
      await using waiting = await load([slow({ whenFull: 'wait' })])
      await decode(waiting, 12)
      const steps = await waiting.userStage('dawdle').collect()
      expect(steps.map(({ step }) => step)).toEqual(Array.from({ length: 12 }, (_, index) => index + 1))
      expect(waiting.userStage('dawdle').dropped).toBe(0)
    })

    test('is waited for no longer than it takes, in a queue of one', async () => {
      const stages = ['attention', 'router', 'combine'].map((point) =>
        stage({ after: point as 'router', export: 'touch', name: point, queue: 1 }),
      )
      await using engine = await load(stages, { deadlineMs: 4000 })
      for (let round = 0; round < 40; round++) await decode(engine, 5)
      for (const { name } of stages) {
        const results = await engine.userStage(name).collect()
        expect(results.length).toBeGreaterThanOrEqual(200)
        expect(engine.userStage(name).dropped).toBe(0)
      }
    })

    test('is given up on when it does not come back, and the engine works on and closes', async () => {
      const engine = await load([stage({ after: 'head', export: 'stall', queue: 1 })], { deadlineMs: 4000 })
      await decode(engine, 4)
      expect(await codeOf(engine.userStage('stall').collect())).toBe('ERR_USER_STAGE')
      await engine.close()
    })

    test('is not waited for by close', async () => {
      const engine = await load([stage({ after: 'head', export: 'stall', queue: 1 })])
      const pending = codeOf(decode(engine, 4))
      await new Promise((resolve) => setTimeout(resolve, 300))
      const start = performance.now()
      await engine.close()
      expect(performance.now() - start).toBeLessThan(4000)
      expect(await pending).toBe('ERR_CLOSED')
      expect(await codeOf(engine.userStage('stall').collect())).toBe('ERR_CLOSED')
    })
  })

  test('a prompt that is aborted among user stages ends, and the next one is right', async () => {
    const stages = (['attention', 'sharedExperts', 'combine'] as const).map((before) =>
      stage({ before, export: 'touch', name: before, steer: before !== 'combine' }),
    )
    await using engine = await load(stages)
    await using plain = await load([])
    const expected = await allLogits(plain, someTokens(20, 5))
    for (let round = 0; round < 4; round++) {
      const controller = new AbortController()
      await using session = engine.session()
      const onProgress = (done: number): void => void (done >= 32 * (round + 1) && setImmediate(() => controller.abort()))
      expect(await codeOf(session.sync(someTokens(250, round), { signal: controller.signal, onProgress }))).toBe('ERR_ABORTED')
      expect(await allLogits(engine, someTokens(20, 5))).toEqual(expected)
    }
  })

  test('results can be looped over until the engine is closed', async () => {
    const engine = await load([stage({ after: 'head', export: 'touch' })])
    const session = engine.session()
    const seen: number[] = []
    const loop = (async () => {
      for await (const { step } of engine.userStage('touch')) seen.push(step)
    })()
    for (let token = 1; token < 5; token++) await session.decode(token)
    while (seen.length < 4) await new Promise((resolve) => setTimeout(resolve, 5))
    await engine.close()
    await loop
    expect(seen).toEqual([1, 2, 3, 4])
    expect(() => engine.userStage('absent')).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }))
  })
})
