/** What goes wrong with a GPU: the call fails with a code, so do later ones, and the engine can be closed. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { type DeviceExecutor, makeDeviceExecutor } from '../../src/engine/device-executor.ts'
import { Engine } from '../../src/engine/engine.ts'
import { deviceOptions, loadModel, type LoadOptions, planModel } from '../../src/engine/load-model.ts'
import { allLogits, codeOf, greedy, type MicroModel, microModel, SMALL, someTokens } from '../fixtures/engine-micro.ts'
import { standIn } from '../fixtures/stand-in.ts'

const PIPELINES = ['hybrid', 'gpu'] as const

let model: MicroModel
beforeAll(async () => {
  model = await microModel()
})
afterAll(() => model[Symbol.asyncDispose]())

/** Loads as `loadModel` does, and keeps the executor at hand. */
async function start(options: LoadOptions): Promise<{ engine: Engine; executor: DeviceExecutor }> {
  const planned = await planModel(model.path, { ...SMALL, ...options })
  const executor = await makeDeviceExecutor(deviceOptions(planned, { deadlineMs: 20_000, ...options }))
  await executor.whenReady()
  return { engine: new Engine({ ...planned, executor }), executor }
}

/** The engine fails with `code`, at once and from then on, and closes within `closeMs`. */
async function assertFailure(engine: Engine, working: Promise<unknown>, code: string, closeMs = 3000): Promise<void> {
  expect(await codeOf(working)).toBe(code)
  expect(() => engine.session()).toThrow(expect.objectContaining({ code }))
  const closing = performance.now()
  await engine.close()
  expect(performance.now() - closing).toBeLessThan(closeMs)
}

describe.skipIf(!standIn).each(PIPELINES)('pipeline %s', (pipeline) => {
  beforeEach(() => standIn?.fault('none'))
  afterEach(() => standIn?.fault('none'))

  test('a prompt that is aborted ends between layers, and the next one is right', async () => {
    await using engine = await loadModel(model.path, { ...SMALL, pipeline })
    const expected = await greedy(engine, someTokens(20, 5), 5)
    for (let round = 0; round < 5; round++) {
      const controller = new AbortController()
      await using session = engine.session()
      const onProgress = (done: number): void => void (done >= 32 * (round + 1) && controller.abort())
      const working = codeOf(session.sync(someTokens(250, round), { signal: controller.signal, onProgress }))
      if (round === 0) setImmediate(() => controller.abort())
      expect(await working).toBe('ERR_ABORTED')
      expect(await greedy(engine, someTokens(20, 5), 5)).toEqual(expected)
    }
  })

  test('an engine that is closed in the middle of a prompt or an answer does not wait for it', async () => {
    for (const tokens of [1, 250]) {
      const { engine } = await start({ pipeline })
      const session = engine.session()
      await session.sync(someTokens(4))
      const working = codeOf(session.sync(someTokens(4 + tokens)))
      await new Promise((resolve) => setImmediate(resolve))
      const closing = performance.now()
      await engine.close()
      expect(performance.now() - closing).toBeLessThan(3000)
      expect(await working).toBe('ERR_CLOSED')
      expect(() => engine.session()).toThrow(expect.objectContaining({ code: 'ERR_CLOSED' }))
    }
  })

  test('a CUDA worker that dies takes the engine with it', async () => {
    const { engine, executor } = await start({ pipeline })
    const working = engine.session().sync(someTokens(250), { onProgress: (done) => void (done === 32 && executor.cuda.killWorker()) })
    await assertFailure(engine, working, 'ERR_WORKER_DIED')
  })

  test('a CUDA worker that dies while nothing is asked of it fails the next call', async () => {
    const { engine, executor } = await start({ pipeline })
    const session = engine.session()
    await executor.cuda.killWorker()
    await assertFailure(engine, session.sync([1, 2, 3]), 'ERR_WORKER_DIED')
  })

  test('a stage that fails on the device fails the step', async () => {
    const { engine } = await start({ pipeline })
    standIn?.fault('stage', 7)
    await assertFailure(engine, engine.session().sync(someTokens(60)), 'ERR_DEVICE')
  })

  test('a stage that fails inside a decode step from a graph fails it', async () => {
    const { engine } = await start({ pipeline })
    const session = engine.session()
    await session.sync(someTokens(5))
    for (const token of [1, 2, 3]) await session.decode(token)
    standIn?.fault('stage', 5)
    await assertFailure(engine, session.decode(4), 'ERR_DEVICE')
  })

  test('a device that is lost fails the step', async () => {
    const { engine } = await start({ pipeline })
    standIn?.fault('lost', 7)
    await assertFailure(engine, engine.session().sync(someTokens(60)), 'ERR_DEVICE_LOST', 8000)
  })

  test('a stage that never ends meets the deadline', async () => {
    const { engine } = await start({ pipeline, deadlineMs: 1500 })
    standIn?.fault('hang', 4)
    await assertFailure(engine, engine.session().sync(someTokens(60)), 'ERR_TIMEOUT', 8000)
  })

  test('a device without enough memory refuses to load', async () => {
    for (const countdown of [1, 2]) {
      standIn?.fault('memory', countdown)
      expect(await codeOf(loadModel(model.path, { ...SMALL, pipeline }))).toBe('ERR_MEMORY')
    }
    standIn?.fault('none')
    await using engine = await loadModel(model.path, { ...SMALL, pipeline })
    expect((await allLogits(engine, [1, 2])).length).toBe(2)
  })

  test('a machine without a device says so', async () => {
    standIn?.fault('absent')
    expect(await codeOf(loadModel(model.path, { ...SMALL, pipeline }))).toBe('ERR_DEVICE_ABSENT')
  })

  test('loading can be aborted at any time', async () => {
    for (const share of [0, 0.3, 1]) {
      const controller = new AbortController()
      const onProgress = ({ done, total }: { done: number; total: number }): void => void (done >= share * total && controller.abort())
      const loading = loadModel(model.path, { ...SMALL, pipeline, signal: controller.signal, onProgress })
      expect(await codeOf(loading)).toBe('ERR_ABORTED')
    }
  })
})

describe.skipIf(!standIn)('the pool beside a device', () => {
  beforeEach(() => standIn?.fault('none'))
  afterEach(() => standIn?.fault('none'))

  test('a worker of the pool that dies takes the engine with it', async () => {
    const { engine, executor } = await start({ pipeline: 'hybrid' })
    const working = engine.session().sync(someTokens(250), { onProgress: (done) => void (done === 32 && executor.pool?.killWorker(1)) })
    await assertFailure(engine, working, 'ERR_WORKER_DIED')
  })

  test('a worker of the pool that dies in the middle of an answer', async () => {
    const { engine, executor } = await start({ pipeline: 'hybrid' })
    const session = engine.session()
    const answer = async (): Promise<void> => {
      let tokens = 0
      for await (const { token } of session.generate(someTokens(10), { temperature: 5, seed: 1, maxTokens: 200 })) {
        if (token !== undefined && ++tokens === 5) void executor.pool?.killWorker(0)
      }
    }
    await assertFailure(engine, answer(), 'ERR_WORKER_DIED')
  })

  test('a hand-off that never comes meets the deadline', async () => {
    const { engine } = await start({ pipeline: 'hybrid', deadlineMs: 1500 })
    standIn?.fault('publish', 2)
    await assertFailure(engine, engine.session().sync(someTokens(60)), 'ERR_TIMEOUT')
  })

  test('a file that one half cannot read fails the load, and the other half is released', async () => {
    const hybrid = { ...SMALL, pipeline: 'hybrid' }
    const planned = await planModel(model.path, hybrid)
    const options = deviceOptions(planned, hybrid)
    const brokenPool = { ...options, pool: { ...options.pool!, paths: ['/nowhere'] } }
    const brokenDevice = { ...options, cuda: { ...options.cuda, paths: ['/nowhere'] } }
    for (const broken of [brokenPool, brokenDevice]) {
      const executor = await makeDeviceExecutor(broken)
      expect(await codeOf(executor.whenReady())).toBe('ERR_FILE_ACCESS')
      await executor.close()
    }
  })
})
