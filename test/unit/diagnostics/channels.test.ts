// Who listens hears of loads, steps, generations, preemptions, failures and a batch's lines; where nobody does, no message is made.
import { subscribe, tracingChannel, unsubscribe } from 'node:diagnostics_channel'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { watched } from '../../../src/engine/generate-watch.ts'
import { StepWatch } from '../../../src/engine/step-watch.ts'
import {
  type BatchLineMessage,
  type Delta,
  type FailureMessage,
  loadModel,
  type PreemptionMessage,
  runBatch,
  type StepMessage,
  type TandemError,
} from '../../../src/index.ts'
import { type BatchFiles, batchFiles } from '../../fixtures/batch-files.ts'
import { codeOf, type MicroModel, microModel, SMALL, someTokens, startParts } from '../../fixtures/engine-micro.ts'

let model: MicroModel
let files: BatchFiles
beforeAll(async () => {
  model = await microModel()
  files = await batchFiles()
})
afterAll(async () => {
  await model[Symbol.asyncDispose]()
  await files[Symbol.asyncDispose]()
})

const ends: (() => void)[] = []
afterEach(() => {
  for (const end of ends.splice(0)) end()
})

/** Messages of a channel until the end of the test. */
function heard<Message>(name: string): Message[] {
  const messages: Message[] = []
  const listen = (message: unknown): void => void messages.push(message as Message)
  subscribe(name, listen)
  ends.push(() => unsubscribe(name, listen))
  return messages
}

interface Event {
  readonly event: string
  readonly message: Readonly<Record<string, unknown>>
}

/** Events of an operation, with what the message held at that moment. */
function events(name: string): Event[] {
  const list: Event[] = []
  const on = (event: string) => (message: object) => void list.push({ event, message: { ...message } })
  const channels = tracingChannel(name)
  const handlers = { start: on('start'), end: on('end'), asyncStart: on('asyncStart'), asyncEnd: on('asyncEnd'), error: on('error') }
  channels.subscribe(handlers)
  ends.push(() => channels.unsubscribe(handlers))
  return list
}

test('a load, from the path to the engine', async () => {
  const loads = events('tandem:load')
  const engine = await loadModel(model.path, SMALL)
  await engine.close()
  expect(loads.map(({ event }) => event)).toEqual(['start', 'end', 'asyncStart', 'asyncEnd'])
  expect(loads[0]!.message).toEqual({ path: model.path, pipeline: 'cpu' })
  const { name, file } = engine.model
  expect(loads[3]!.message).toMatchObject({ path: model.path, pipeline: 'cpu', model: name, bytes: file.bytes })
  expect(loads[3]!.message.result).toBe(engine)
})

test('a load that fails', async () => {
  const loads = events('tandem:load')
  expect(await codeOf(loadModel('/nowhere/model.gguf'))).toBe('ERR_FILE_ACCESS')
  expect(loads.map(({ event }) => event)).toEqual(['start', 'end', 'error', 'asyncStart', 'asyncEnd'])
  expect(loads[4]!.message).toMatchObject({ error: { code: 'ERR_FILE_ACCESS' } })
})

test('steps, whose tokens are those that were evaluated', async () => {
  await using engine = await loadModel(model.path, SMALL)
  const steps = heard<StepMessage>('tandem:step')
  await using session = engine.session()
  await session.sync(someTokens(100))
  await session.decode(5)
  expect(steps.map(({ step, tokens, sequences, outputs, isDone }) => [step, tokens, sequences, outputs, isDone])).toEqual([
    [1, 32, 1, 0, true],
    [2, 32, 1, 0, true],
    [3, 32, 1, 0, true],
    [4, 4, 1, 1, true],
    [5, 1, 1, 1, true],
  ])
  expect(steps.every(({ ms }) => ms > 0)).toBe(true)
  await using other = engine.session()
  await Promise.all([session.decode(6), other.sync(someTokens(3))])
  expect(steps.slice(5).reduce((sum, { tokens }) => sum + tokens, 0)).toBe(4)
})

test('generations: one that ends, one that fails, one that is left', async () => {
  await using engine = await loadModel(model.path, SMALL)
  const generations = events('tandem:generate')
  const { text: _, ...finish } = await engine.generate([1, 2, 3], { maxTokens: 4 })
  expect(generations.splice(0)).toEqual([
    ...['start', 'end'].map((event) => ({ event, message: { model: engine.model.name } })),
    ...['asyncStart', 'asyncEnd'].map((event) => ({ event, message: { model: engine.model.name, finish } })),
  ])
  expect(await codeOf(engine.generate(someTokens(400)))).toBe('ERR_CONTEXT_OVERFLOW')
  expect(generations.map(({ event }) => event)).toEqual(['start', 'end', 'error', 'asyncStart', 'asyncEnd'])
  expect(generations.splice(0)[4]!.message).toMatchObject({ error: { code: 'ERR_CONTEXT_OVERFLOW' } })
  for await (const { token } of engine.session().generate([1, 2, 3], { temperature: 5, seed: 1 })) if (token !== undefined) break
  expect(generations.map(({ event, message }) => [event, 'finish' in message])).toEqual(
    ['start', 'end', 'asyncStart', 'asyncEnd'].map((event) => [event, false]),
  )
})

test('preemptions, as many as the sessions count', async () => {
  await using engine = await loadModel(model.path, { ...SMALL, kvTokens: 256, sequences: 6 })
  const told = heard<PreemptionMessage>('tandem:preemption')
  const counts = await Promise.all(
    Array.from({ length: 6 }, async (_, index) => {
      await using session = engine.session()
      session.waitWhenFull()
      for await (const delta of session.generate(someTokens(50, index), { maxTokens: 60, temperature: 5, seed: index })) void delta
      return session.preemptions
    }),
  )
  expect(told.length).toBe(counts.reduce((sum, each) => sum + each, 0))
  expect(told.length).toBeGreaterThan(0)
  expect(told.every(({ tokens, blocks, preemptions }) => tokens <= blocks * 32 && blocks > 0 && preemptions > 0)).toBe(true)
})

test('a failure, once, with what every call rejects with', async () => {
  const failures = heard<FailureMessage>('tandem:failure')
  const { engine, executor } = await startParts(model.path, SMALL)
  await executor.killWorker(0)
  expect(await codeOf(engine.generate([1, 2]))).toBe('ERR_WORKER_DIED')
  expect(await codeOf(engine.generate([1, 2]))).toBe('ERR_WORKER_DIED')
  await engine.close()
  expect(failures).toEqual([{ error: expect.objectContaining({ code: 'ERR_WORKER_DIED' }) as TandemError }])
})

test('the lines of a batch job', async () => {
  await using engine = await loadModel(model.path, SMALL)
  const lines = heard<BatchLineMessage>('tandem:batch:line')
  const input = await files.write('in.jsonl', [{ id: 'a', prompt: [1, 2, 3] }, '{', { id: 'b', prompt: someTokens(300) }])
  await runBatch(engine, { input, output: files.path('out.jsonl'), defaults: { maxTokens: 2 } })
  const byLine = lines.toSorted((a, b) => a.line - b.line)
  expect(byLine).toMatchObject([
    { line: 1, id: 'a', finish: { promptTokens: 3 } },
    { line: 2, id: undefined, error: { code: 'ERR_BATCH_LINE' } },
    { line: 3, id: 'b', error: { code: 'ERR_CONTEXT_OVERFLOW' } },
  ])
  expect(byLine.map((line) => 'finish' in line !== 'error' in line)).toEqual([true, true, true])
})

test('where nobody listens, clocks are not looked at and generations are not wrapped', async () => {
  const watch = new StepWatch()
  expect(watch.begin()).toBe(undefined)
  const none = async function* (): AsyncGenerator<Delta, void, undefined> {
    yield* []
  }
  const deltas = none()
  expect(watched(deltas, 'x')).toBe(deltas)
  heard('tandem:step')
  heard('tracing:tandem:generate:asyncEnd')
  expect(watch.begin()).toBeGreaterThan(0)
  expect(watched(deltas, 'x')).not.toBe(deltas)
})
