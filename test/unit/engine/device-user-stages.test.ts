/** User stages and embeddings on a device see and change what they see and change on the pool. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startDeviceExecutor } from '../../../src/engine/device-executor.ts'
import { Engine } from '../../../src/engine/engine.ts'
import { deviceOptions, loadModel, type LoadOptions, planModel } from '../../../src/engine/load-model.ts'
import { definePipeline, type PipelineOptions } from '../../../src/pipeline/define.ts'
import {
  type StepView,
  type UserStageContext,
  type UserStageOptions,
  VIEW_FIELDS,
  type ViewArrays,
} from '../../../src/pipeline/user-stage.ts'
import { POCKET_MODEL } from '../../../src/pocket-model.ts'
import { FLOAT_NMSE, greedy, type MicroModel, microModel, nmse, SMALL, someTokens } from '../../fixtures/engine-micro.ts'
import { hasDevice } from '../../fixtures/stand-in.ts'
import { rerank } from '../../../pipelines/rerank.ts'
import { expertUse, userStages as countExperts } from '../../../pipelines/router-statistics.ts'

const CPU: PipelineOptions = { name: 'cpu', executor: 'wasm' }
const HYBRID: PipelineOptions = { name: 'hybrid', executor: 'cuda', stages: { routedExperts: 'wasm' } }

const PLACEMENTS: readonly { readonly name: string; readonly where: PipelineOptions; readonly options?: LoadOptions }[] = [
  { name: 'hybrid', where: HYBRID },
  { name: 'gpu', where: { name: 'gpu', executor: 'cuda' } },
  { name: 'hybrid without overlap', where: { ...HYBRID, overlap: false } },
  { name: "hybrid with one layer's experts on the device", where: HYBRID, options: { gpuExpertLayers: 1 } },
]

const stageAt = (place: string, more: Partial<UserStageOptions>): UserStageOptions => {
  const [when, stage] = place.split(' ') as ['before', 'head']
  const module = new URL('../../fixtures/user-functions.ts', import.meta.url)
  return { name: `${place} ${more.export}`, module, queue: 64, whenFull: 'wait', [when]: stage, ...more } as UserStageOptions
}

const PLACES = Object.keys(VIEW_FIELDS)

const everywhere = (more: Partial<UserStageOptions>): UserStageOptions[] => PLACES.map((place) => stageAt(place, more))

type Seen = Partial<StepView & ViewArrays> & Pick<UserStageContext, 'layer' | 'step'>

let model: MicroModel
beforeAll(async () => {
  model = await microModel({ format: 'F16', expertFormat: 'F16' })
})
afterAll(() => model[Symbol.asyncDispose]())

const load = (where: PipelineOptions, userStages: readonly UserStageOptions[] = [], options: LoadOptions = {}): Promise<Engine> =>
  loadModel(model.path, { ...SMALL, ...options, pipeline: definePipeline({ ...where, userStages }) })

/** A prompt of two steps, some tokens one by one, and three sequences at once; the logits after each. */
async function work(engine: Engine): Promise<Float32Array[]> {
  const logits: Float32Array[] = []
  await using session = engine.session()
  logits.push((await session.sync(someTokens(40))).slice())
  for (const token of [7, 9, 11, 13]) logits.push((await session.decode(token)).slice())
  const sessions = [3, 1, 5].map(() => engine.session())
  const together = await Promise.all(sessions.map((each, index) => each.sync(someTokens(6 + 5 * index, index + 2))))
  logits.push(...together.map((each) => each.slice()))
  for (const each of sessions) await each.close()
  return logits
}

const worst = (ours: readonly Float32Array[], theirs: readonly Float32Array[]): number => {
  expect(ours.length).toBe(theirs.length)
  return Math.max(...ours.map((row, index) => nmse(row, theirs[index]!)))
}

/** What observers saw, by the name of the stage. */
async function observed(engine: Engine, stages: readonly UserStageOptions[]): Promise<Map<string, Seen[]>> {
  const seen = new Map<string, Seen[]>()
  for (const { name } of stages) {
    const results = await engine.userStage<Seen>(name).collect()
    expect(engine.userStage(name).dropped).toBe(0)
    seen.set(
      name,
      results.map(({ value }) => value),
    )
  }
  return seen
}

/** The same calls with the same integers, and floats that differ in their last bits. */
function expectSame(ours: readonly Seen[], theirs: readonly Seen[]): void {
  const integers = ({ layer, step, tokens, positions, runs, expertIds, outputs }: Seen): object =>
    structuredClone({ layer, step, tokens, positions, runs, expertIds, outputs })
  expect(ours.map(integers)).toEqual(theirs.map(integers))
  for (const name of ['x', 'shared', 'routed', 'expertWeights', 'logits'] as const) {
    const floats = (seen: readonly Seen[]): Float32Array[] => seen.flatMap((each) => (each[name]?.length ? [each[name]] : []))
    expect(worst(floats(ours), floats(theirs)), name).toBeLessThanOrEqual(FLOAT_NMSE)
  }
}

/** Computed once: what the pool alone makes of something. */
function once<Value>(make: () => Promise<Value>): () => Promise<Value> {
  let made: Promise<Value> | undefined
  return () => (made ??= make())
}

const OBSERVERS = everywhere({ export: 'echo' })

const STEERERS = PLACES.flatMap((place) => [
  stageAt(place, { export: 'echo', name: `${place}, before` }),
  stageAt(place, { export: 'nudge', steer: true }),
  stageAt(place, { export: 'echo', name: `${place}, after` }),
])

/** Each of them at work in a step of its own. */
const IN_TURN = PLACES.map((place, index) => stageAt(place, { export: 'nudge', steer: true, data: index + 1 }))

async function workObserved(where: PipelineOptions, stages: readonly UserStageOptions[], options?: LoadOptions) {
  await using engine = await load(where, stages, options)
  const logits = await work(engine)
  const observers = stages.filter(({ steer }) => !steer)
  return { logits, seen: await observed(engine, observers) }
}

async function logitsInTurn(where: PipelineOptions, stages: readonly UserStageOptions[], options?: LoadOptions): Promise<Float32Array[]> {
  await using engine = await load(where, stages, options)
  const logits: Float32Array[] = []
  for (const _ of PLACES) {
    await using session = engine.session()
    logits.push((await session.sync(someTokens(9))).slice())
  }
  return logits
}

const TEXTS = [someTokens(45), someTokens(3, 2), [7], someTokens(70, 4)]
const CONTINUATIONS = [someTokens(12, 5), someTokens(1, 6), someTokens(30, 5)]

async function embedAndScore(engine: Engine) {
  const vectors = [...(await engine.embed(TEXTS)), ...(await engine.embed(TEXTS, { pooling: 'last', normalize: false }))]
  return { vectors, scores: await engine.score(someTokens(40), CONTINUATIONS) }
}

const pool = {
  observed: once(() => workObserved(CPU, OBSERVERS)),
  steered: once(() => workObserved(CPU, STEERERS)),
  inTurn: once(() => logitsInTurn(CPU, IN_TURN)),
  plain: once(() => logitsInTurn(CPU, [])),
  embedded: once(async () => {
    await using engine = await load(CPU, [], { outputs: 8 })
    return await embedAndScore(engine)
  }),
}

describe.skipIf(!hasDevice).each(PLACEMENTS)('$name', ({ where, options }) => {
  test('observers see what they see on the pool, at every place', async () => {
    const [ours, theirs] = [await workObserved(where, OBSERVERS, options), await pool.observed()]
    expect(worst(ours.logits, theirs.logits)).toBeLessThanOrEqual(FLOAT_NMSE)
    for (const [name, seen] of theirs.seen) {
      expect(seen.length).toBeGreaterThan(0)
      expectSame(ours.seen.get(name)!, seen)
    }
  })

  test('steerers change what they change on the pool, and observers beside them see it', async () => {
    const [ours, theirs] = [await workObserved(where, STEERERS, options), await pool.steered()]
    expect(worst(ours.logits, theirs.logits)).toBeLessThanOrEqual(FLOAT_NMSE)
    for (const [name, seen] of theirs.seen) expectSame(ours.seen.get(name)!, seen)
  })

  test('a steerer at any one place changes the logits as on the pool', async () => {
    const [ours, theirs, plain] = [await logitsInTurn(where, IN_TURN, options), await pool.inTurn(), await pool.plain()]
    for (const [index, place] of PLACES.entries()) {
      expect(nmse(ours[index]!, theirs[index]!), place).toBeLessThanOrEqual(FLOAT_NMSE)
      expect(nmse(ours[index]!, plain[index]!), place).toBeGreaterThan(50 * FLOAT_NMSE)
    }
  })

  test('embeddings and scores are those of the pool', async () => {
    await using engine = await load(where, [], { ...options, outputs: 8 })
    const [ours, theirs] = [await embedAndScore(engine), await pool.embedded()]
    expect(worst(ours.vectors, theirs.vectors)).toBeLessThanOrEqual(FLOAT_NMSE)
    const sums = (each: typeof ours): Float32Array => Float32Array.from(each.scores.map(({ logProbability }) => logProbability))
    expect(nmse(sums(ours), sums(theirs))).toBeLessThanOrEqual(FLOAT_NMSE)
    // in one step with sequences that want their logits alone
    const alone = await greedy(engine, someTokens(20), 12)
    const [together, [vector]] = await Promise.all([greedy(engine, someTokens(20), 12), engine.embed([TEXTS[3]!])])
    expect(together).toEqual(alone)
    expect(nmse(vector!, theirs.vectors[3]!)).toBeLessThanOrEqual(FLOAT_NMSE)
  })
})

describe.skipIf(!hasDevice)('decode with user stages', () => {
  const steps = async (where: PipelineOptions, userStages: readonly UserStageOptions[], trace = false) => {
    const options = { ...SMALL, trace, pipeline: definePipeline({ ...where, userStages }) }
    const planned = await planModel(model.path, options)
    const executor = await startDeviceExecutor(deviceOptions(planned, options))
    const engine = new Engine({ ...planned, executor, traceEvents: trace ? 1 << 10 : 0 })
    const session = engine.session()
    await session.sync(someTokens(5))
    for (const token of someTokens(10)) await session.decode(token)
    const events = trace ? [...engine.trace()!].join('') : ''
    await engine.close()
    return { stats: await executor.cuda.stats(), events }
  }

  test.each([HYBRID, { name: 'gpu', executor: 'cuda' } as const])('comes from graphs: $name', async (where) => {
    const graphs = { steps: 11, graphSteps: 9 }
    expect((await steps(where, everywhere({ export: 'touch' }))).stats).toEqual(graphs)
    expect((await steps(where, everywhere({ export: 'touch', steer: true }))).stats).toEqual(graphs)
  })

  test('shows in a trace', async () => {
    const { events } = await steps(HYBRID, everywhere({ export: 'touch' }), true)
    const names = (JSON.parse(events) as { traceEvents: { name: string }[] }).traceEvents.map(({ name }) => name)
    expect(names.filter((name) => name.startsWith('user')).length).toBeGreaterThan(11)
  })
})

describe.skipIf(!hasDevice)('the pocket model on a device', () => {
  const POCKET: LoadOptions = { contextTokens: 256, ubatch: 64, sequences: 2, kvTokens: 512, threads: 2 }

  test('router statistics', async () => {
    const counts = []
    for (const where of [CPU, HYBRID]) {
      await using engine = await loadModel(POCKET_MODEL, { ...POCKET, pipeline: definePipeline({ ...where, userStages: countExperts }) })
      await engine.generate('Sort these letters: d b a c', { maxTokens: 8, temperature: 0 })
      counts.push(expertUse(await engine.userStage<Int32Array>('experts').collect()))
    }
    const [theirs, ours] = counts
    expect(ours!.map(({ layer }) => layer)).toEqual(theirs!.map(({ layer }) => layer))
    const total = (each: Int32Array): number => each.reduce((sum, count) => sum + count, 0)
    for (const [index, { counts: own }] of ours!.entries()) {
      const other = theirs![index]!.counts
      expect(total(own)).toBe(total(other))
      // a choice between two experts that are as good as each other may fall either way
      const moved = own.reduce((sum, count, expert) => sum + Math.abs(count - other[expert]!), 0)
      expect(moved).toBeLessThanOrEqual(0.1 * total(own))
    }
  })

  test('greedy answers are of the logits that a function has changed', async () => {
    const favour = stageAt('after head', { export: 'favour', steer: true, data: { token: 77 } })
    await using engine = await loadModel(POCKET_MODEL, { ...POCKET, pipeline: definePipeline({ ...HYBRID, userStages: [favour] }) })
    const tokens: (number | undefined)[] = []
    await using session = engine.session()
    for await (const { token } of session.generate('What is 27 + 48?', { maxTokens: 3, temperature: 0 })) tokens.push(token)
    expect(tokens.slice(0, 3)).toEqual([77, 77, 77])
  })

  test('rerank', async () => {
    const orders = []
    for (const pipeline of ['cpu', 'hybrid']) {
      await using engine = await loadModel(POCKET_MODEL, { ...POCKET, pipeline })
      const ranked = await rerank(engine, 'What is 27 + 48?', ['75', '13', 'a fox'])
      orders.push(ranked.map(({ text }) => text))
    }
    expect(orders[1]).toEqual(orders[0])
  })
})
