/** A worker that dies or stalls: the call fails with a code, so do later ones, and the engine can be closed. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Engine } from '../../src/engine/engine.ts'
import { makeWasmExecutor } from '../../src/wasm/executor.ts'
import { codeOf, executorParts, type MicroModel, microModel, SMALL, someTokens, startParts } from '../fixtures/engine-micro.ts'

let model: MicroModel
beforeAll(async () => {
  model = await microModel()
})
afterAll(() => model[Symbol.asyncDispose]())

describe('a worker that dies', () => {
  test.each([1, 2, 3])('in the middle of a prompt, of %i workers', async (threads) => {
    const { engine, executor } = await startParts(model.path, { ...SMALL, threads })
    const [first, second] = [engine.session(), engine.session()]
    const onProgress = (done: number): void => void (done > 20 && executor.killWorker(0))
    const pending = [codeOf(first.sync(someTokens(250), { onProgress })), codeOf(second.sync(someTokens(250, 2)))]
    expect(await Promise.all(pending)).toEqual(['ERR_WORKER_DIED', 'ERR_WORKER_DIED'])
    expect(await codeOf(first.decode(1))).toBe('ERR_WORKER_DIED')
    expect(await codeOf(engine.generate([1, 2]))).toBe('ERR_WORKER_DIED')
    expect(() => engine.session()).toThrow(expect.objectContaining({ code: 'ERR_WORKER_DIED' }))
    await first.close()
    await engine.close()
    expect(await codeOf(second.sync([1]))).toBe('ERR_CLOSED')
  })

  test('in the middle of an answer', async () => {
    const { engine, executor } = await startParts(model.path, SMALL)
    const answer = async (): Promise<void> => {
      let tokens = 0
      for await (const { token } of engine.session().generate(someTokens(10), { temperature: 5, seed: 1 })) {
        if (token !== undefined && ++tokens === 3) void executor.killWorker(1)
      }
    }
    expect(await codeOf(answer())).toBe('ERR_WORKER_DIED')
    await engine.close()
  })

  test('while nothing is asked of it', async () => {
    const { engine, executor } = await startParts(model.path, SMALL)
    const session = engine.session()
    await executor.killWorker(0)
    expect(await codeOf(session.sync([1, 2, 3]))).toBe('ERR_WORKER_DIED')
    await engine.close()
  })

  test('while it loads', async () => {
    const { start } = await executorParts(model.path, SMALL)
    const executor = await makeWasmExecutor(start)
    await executor.killWorker(0)
    expect(await codeOf(executor.whenReady())).toBe('ERR_WORKER_DIED')
    await executor.close()
  })
})

describe('a wait that takes too long', () => {
  test('inside a step fails the step', async () => {
    const { start, ...planned } = await executorParts(model.path, { ...SMALL, threads: 7 })
    const options = { ...start, deadlineMs: 1e-6 }
    const executor = await makeWasmExecutor(options)
    // the workers have their deadline, loading has a longer one
    options.deadlineMs = 30_000
    await executor.whenReady()
    const engine = new Engine({ ...planned, executor })
    const session = engine.session()
    expect(await codeOf(session.sync(someTokens(200)))).toBe('ERR_TIMEOUT')
    expect(await codeOf(session.sync([1]))).toBe('ERR_TIMEOUT')
    await engine.close()
  })
})

describe('an executor that is closed in the middle of a step', () => {
  test.each([1, 2, 7])('does not wait for it, with %i workers', async (threads) => {
    const { engine, executor } = await startParts(model.path, { ...SMALL, threads })
    const pending = codeOf(engine.session().sync(someTokens(250), { onProgress: (done) => void (done === 32 && executor.close()) }))
    expect(await pending).toBe('ERR_CLOSED')
    await executor.close()
    await engine.close()
    expect(() => executor.tryClaim()).toThrow(expect.objectContaining({ code: 'ERR_CLOSED' }))
    expect(() => executor.logits(0)).toThrow(expect.objectContaining({ code: 'ERR_CLOSED' }))
  })
})
