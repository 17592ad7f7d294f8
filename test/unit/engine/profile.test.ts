/** Where the time of steps goes: what is counted, and that it adds up to what a caller sees on the clock. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { loadModel, type Profile, type StepProfile } from '../../../src/index.ts'
import { type MicroModel, microModel, SMALL, someTokens, startParts } from '../../fixtures/engine-micro.ts'
import { wholeOnPool } from '../../fixtures/engine-models.ts'

let model: MicroModel
beforeAll(async () => {
  model = await microModel()
})
afterAll(() => model[Symbol.asyncDispose]())

const sumOf = ({ begin, stages, wakeMs, handOffMs }: StepProfile): number =>
  stages.reduce((sum, { ms }) => sum + ms, begin.ms + wakeMs + handOffMs)

/** A profile of a prompt of `prompt` tokens and `decodes` tokens behind it, and how long both took. */
async function profiled(
  threads: number,
  prompt: number,
  decodes: number,
): Promise<{ profile: Profile; prefillMs: number; decodeMs: number }> {
  const engine = await loadModel(model.path, { ...SMALL, threads, profile: true })
  try {
    const session = engine.session()
    await session.sync(someTokens(prompt))
    await session.decode(1)
    session.truncate(0)
    engine.resetProfile()
    const start = performance.now()
    await session.sync(someTokens(prompt))
    const prefilled = performance.now()
    for (const token of someTokens(decodes)) await session.decode(token)
    const end = performance.now()
    return { profile: engine.profile()!, prefillMs: prefilled - start, decodeMs: end - prefilled }
  } finally {
    await engine.close()
  }
}

describe.each([1, 2, 3])('with %i workers', (threads) => {
  test('the parts add up to the whole, and the whole to the time that has passed', async () => {
    const { profile, prefillMs, decodeMs } = await profiled(threads, 96, 40)
    const { prefill, decode } = profile
    expect([prefill.steps, prefill.tokens, decode.steps, decode.tokens]).toEqual([3, 96, 40, 40])
    for (const step of [prefill, decode]) {
      expect(sumOf(step)).toBeCloseTo(step.ms, 6)
      expect(step.stages.every(({ ms, waitMs }) => waitMs >= 0 && ms >= waitMs)).toBe(true)
    }
    // the calls' own overhead is outside; the ends of the two parts are a turn of the event loop apart
    const total = prefill.ms * prefill.steps + decode.ms * decode.steps
    expect(total).toBeLessThanOrEqual((prefillMs + decodeMs) * 1.01)
    expect(total).toBeGreaterThan((prefillMs + decodeMs) * 0.5)
    // what the workers know is within what the main thread has seen
    const inPool = decode.stages.reduce((sum, { ms }) => sum + ms, decode.begin.ms)
    expect(inPool).toBeGreaterThan(0)
    expect(inPool).toBeLessThanOrEqual(decode.ms * 1.01)
  })
})

test('every stage of the program has a row, with as many calls', async () => {
  const engine = await loadModel(model.path, { ...SMALL, profile: true })
  await engine.session().sync(someTokens(5))
  const { calls } = engine.programs.wasm!
  const { prefill, decode } = engine.profile()!
  await engine.close()
  const counts = new Map<string, number>()
  for (const { stage } of calls) counts.set(stage, (counts.get(stage) ?? 0) + 1)
  expect(new Map(prefill.stages.map((row) => [row.stage, row.calls]))).toEqual(counts)
  expect(decode).toEqual({ steps: 0, tokens: 0, ms: 0, begin: { ms: 0, waitMs: 0 }, stages: [], wakeMs: 0, handOffMs: 0 })
})

test('transfers are a stage, and experts in several arenas are read once', async () => {
  const whole = await loadModel(model.path, { ...SMALL, profile: true })
  const split = await loadModel(model.path, { ...SMALL, profile: true, arenaBytes: wholeOnPool(whole.plan).arena.end + 1_300_000 })
  const bytes: (number | undefined)[] = []
  for (const engine of [whole, split]) {
    await engine.session().decode(1)
    const { stages } = engine.profile()!.decode
    expect(stages.some(({ stage }) => stage === 'transfer')).toBe(engine === split)
    bytes.push(stages.find(({ stage }) => stage === 'routedExperts')!.weightBytes)
    await engine.close()
  }
  expect(wholeOnPool(split.plan).layers.some(({ routed }) => routed.length > 1)).toBe(true)
  expect(bytes[0]).toBeGreaterThan(0)
  expect(bytes[1]).toBe(bytes[0])
})

test('weights read are those of the plan: all of a layer, of its experts those that a token uses', async () => {
  const engine = await loadModel(model.path, { ...SMALL, profile: true })
  const session = engine.session()
  await session.sync(someTokens(9))
  await session.decode(1)
  const { decode, prefill } = engine.profile()!
  const plan = wholeOnPool(engine.plan)
  await engine.close()
  const ofDecode = new Map(decode.stages.map((row) => [row.stage, row]))
  const { expertsUsed } = engine.programs.wasm!.shape
  const experts = plan.layers.flatMap(({ routed }) => routed.slice(0, 1)).flatMap(({ gate, up, down }) => [gate, up, down])
  const attention = plan.layers.flatMap(({ attention: { q, k, v, output } }) => [q, k, v, output])
  const sum = (matrices: typeof experts): number => matrices.reduce((total, { expertBytes }) => total + expertBytes, 0)
  expect(ofDecode.get('routedExperts')!.weightBytes).toBe(sum(experts) * expertsUsed)
  expect(ofDecode.get('attention')!.weightBytes).toBe(sum(attention))
  expect(ofDecode.get('head')!.weightBytes).toBe(plan.head.expertBytes)
  for (const { weightBytes, gbPerSecond, ms } of decode.stages) expect(gbPerSecond).toBe(weightBytes && weightBytes / ms / 1e6)
  expect(ofDecode.get('embed')).not.toHaveProperty('weightBytes')
  expect(prefill.stages.every((row) => !('weightBytes' in row) && !('gbPerSecond' in row))).toBe(true)
})

test('sequences that decode together make one step, whose experts nobody knows', async () => {
  const engine = await loadModel(model.path, { ...SMALL, profile: true })
  const sessions = [engine.session(), engine.session(), engine.session()]
  await Promise.all(sessions.map((session, index) => session.decode(index + 1)))
  const { decode, prefill } = engine.profile()!
  await engine.close()
  expect([decode.steps, decode.tokens, prefill.steps]).toEqual([1, 3, 0])
  expect(decode.stages.find(({ stage }) => stage === 'routedExperts')).not.toHaveProperty('weightBytes')
})

test('hand-off is the time until the next step is asked for', async () => {
  const engine = await loadModel(model.path, { ...SMALL, profile: true })
  const session = engine.session()
  await session.decode(1)
  await new Promise((resolve) => setTimeout(resolve, 60))
  await session.decode(2)
  const { decode } = engine.profile()!
  await engine.close()
  expect(decode.handOffMs * decode.steps).toBeGreaterThan(55)
})

test('an abandoned step does not spoil what comes after', async () => {
  const engine = await loadModel(model.path, { ...SMALL, profile: true })
  const session = engine.session()
  const controller = new AbortController()
  const aborted = session.sync(someTokens(200), { signal: controller.signal, onProgress: () => controller.abort() })
  await expect(aborted).rejects.toMatchObject({ code: 'ERR_ABORTED' })
  engine.resetProfile()
  await session.decode(1)
  const { decode, prefill } = engine.profile()!
  await engine.close()
  expect([decode.steps, prefill.steps]).toEqual([1, 0])
  expect(sumOf(decode)).toBeCloseTo(decode.ms, 6)
})

test('results are the same, and without the option nothing is recorded', async () => {
  const [off, on] = [await startParts(model.path, SMALL), await loadModel(model.path, { ...SMALL, profile: true })]
  const logits = await Promise.all([off.engine, on].map(async (engine) => (await engine.session().sync(someTokens(40))).slice()))
  expect(logits[0]).toEqual(logits[1])
  off.engine.resetProfile()
  expect(off.executor.stageTimes).toBeUndefined()
  expect(off.engine.profile()).toBeUndefined()
  expect(on.profile()).toBeDefined()
  await Promise.all([off.engine.close(), on.close()])
})

test('a profile is plain data', async () => {
  const { profile } = await profiled(2, 20, 3)
  expect(structuredClone(profile)).toEqual(profile)
  expect(JSON.parse(JSON.stringify(profile))).toEqual(profile)
})
