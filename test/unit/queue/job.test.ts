/** Jobs through a queue on a real Redis, with workers in this process: the same output as without, no more in Redis than wished, and nothing mixed. */
import { readFile, writeFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { EngineAnswerer } from '../../../src/batch/engine-answerer.ts'
import { runBatch } from '../../../src/batch/job.ts'
import { loadModel, POCKET_MODEL } from '../../../src/index.ts'
import { queueOf } from '../../../src/queue/keys.ts'
import { identifyModel } from '../../../src/queue/model-identity.ts'
import { queueStatus, removeJob } from '../../../src/queue/status.ts'
import { type BatchFiles, batchFiles, idOf, readOutput } from '../../fixtures/batch-files.ts'
import { echoing, MODEL, produce, startWorker } from '../../fixtures/queue-parties.ts'
import { hasRedis, startRedis, type TestRedis } from '../../fixtures/redis.ts'

let redis: TestRedis
let files: BatchFiles
let runs = 0
beforeAll(async () => {
  if (!hasRedis) return
  redis = await startRedis()
  files = await batchFiles()
})
afterAll(async () => {
  await redis?.[Symbol.asyncDispose]()
  await files?.[Symbol.asyncDispose]()
})
beforeEach(async () => {
  if (hasRedis) await (await redis.connect()).redis.flushall()
})

const tasks = (count: number, prefix = 't') =>
  Array.from({ length: count }, (_, index) => ({ id: `${prefix}${index}`, prompt: `${prefix} ${index}` }))

async function paths(lines: readonly unknown[], extension = 'jsonl') {
  runs++
  return { input: await files.write(`in-${runs}.jsonl`, lines), output: files.path(`out-${runs}.${extension}`) }
}

const idsOf = async (output: string): Promise<string[]> => (await readOutput(output)).map((line) => String(idOf(line))).sort()
const idsIn = (lines: readonly { id: string }[]): string[] => lines.map(({ id }) => id).sort()

describe.skipIf(!hasRedis)('a queue', () => {
  test('gives the answers of the embedded job, errors of lines too', async () => {
    const lines = [
      ...Array.from({ length: 40 }, (_, index) => ({ id: index, prompt: `What is ${index} + ${index * 3}?`, maxTokens: 8 })),
      { id: 'long', prompt: 'word '.repeat(900) },
      { id: 'bad', prompt: 'x', temperature: -1 },
      {
        custom_id: 'chat',
        method: 'POST',
        url: '/v1/chat/completions',
        body: { messages: [{ role: 'user', content: 'What is 2 + 2?' }], max_tokens: 8 },
      },
      { custom_id: 'raw', method: 'POST', url: '/v1/completions', body: { prompt: 'Once upon', max_tokens: 8 } },
      '{broken',
    ]
    const identity = await identifyModel(POCKET_MODEL)
    await using engine = await loadModel(POCKET_MODEL, { threads: 1, sequences: 8, contextTokens: 256 })
    const { input, output } = await paths(lines)
    const embedded = files.path('embedded.jsonl')
    await runBatch(engine, { input, output: embedded, defaults: { maxTokens: 9 } })
    const worker = await startWorker(redis, new EngineAnswerer(engine, {}), { model: identity, lockMs: 10_000 })
    const summary = await produce(redis, { input, output, defaults: { maxTokens: 9 } }, { model: identity })
    const done = await worker.end()
    expect(summary).toMatchObject({ lines: 45, succeeded: 42, failed: 3, earlier: 0 })
    expect(done).toMatchObject({ answered: 42, failed: 1, returned: 0, active: 0 })
    const sorted = async (path: string): Promise<string[]> =>
      (await readFile(path, 'utf8'))
        .trim()
        .split('\n')
        .map((line) => line.replace(/"created":\d+/, '').replace(/"cached_tokens":\d+/, ''))
        .sort()
    expect(await sorted(output)).toEqual(await sorted(embedded))
  })

  test.each(['jsonl', 'jsonl.gz'])('never has more lines in Redis than it may, and none at the end (%s)', async (extension) => {
    const lines = tasks(120)
    const { input, output } = await paths(lines, extension)
    const connection = await redis.connect()
    const queue = queueOf(connection, MODEL.modelId)
    const seen: number[] = []
    const worker = await startWorker(redis, echoing(5))
    const watch = setInterval(() => {
      void queue.getRanges(['wait', 'active', 'completed', 'failed'], 0, -1).then((names) => seen.push(new Set(names).size))
    }, 5)
    await produce(redis, { input, output }, { lines: 10 })
    clearInterval(watch)
    await worker.end()
    expect(Math.max(...seen)).toBeLessThanOrEqual(10)
    expect(Math.max(...seen)).toBeGreaterThan(5)
    expect(await idsOf(output)).toEqual(idsIn(lines))
    expect(await queue.getRanges(['wait', 'active', 'completed', 'failed'], 0, -1)).toEqual([])
    expect(await connection.redis.keys('tandem-queue:*/*')).toEqual([])
  })

  test('keeps jobs apart, at the same time and on the same workers', async () => {
    const [first, second] = [tasks(60, 'a'), tasks(60, 'b')]
    const [one, two] = [await paths(first), await paths(second)]
    const workers = [await startWorker(redis, echoing(3)), await startWorker(redis, echoing(3))]
    await Promise.all([produce(redis, one, { job: 'one' }), produce(redis, two, { job: 'two' })])
    for (const worker of workers) await worker.end()
    expect(await idsOf(one.output)).toEqual(idsIn(first))
    expect(await idsOf(two.output)).toEqual(idsIn(second))
  })

  test('has one producer per job', async () => {
    const { input, output } = await paths(tasks(4))
    const controller = new AbortController()
    const first = produce(redis, { input, output, signal: controller.signal })
    await sleep(300)
    await expect(produce(redis, await paths(tasks(4)))).rejects.toMatchObject({
      code: 'ERR_QUEUE_JOB',
      message: expect.stringMatching(/produces the job job/) as string,
    })
    controller.abort()
    await expect(first).rejects.toMatchObject({ code: 'ERR_ABORTED' })
  })

  test('has what was answered meanwhile when a producer comes again, and computes nothing twice', async () => {
    const lines = tasks(30)
    const files1 = await paths(lines)
    const controller = new AbortController()
    const first = produce(redis, { ...files1, signal: controller.signal })
    const queue = queueOf(await redis.connect(), MODEL.modelId)
    while ((await queue.getRanges(['wait'], 0, -1)).length < 30) await sleep(10)
    controller.abort()
    await expect(first).rejects.toMatchObject({ code: 'ERR_ABORTED' })
    const computed: string[] = []
    const worker = await startWorker(
      redis,
      echoing(1, 4, ({ id }) => void computed.push(String(id))),
    )
    while ((await queue.getRanges(['completed'], 0, -1)).length < 20) await sleep(10)
    await produce(redis, files1)
    await worker.end()
    expect(await idsOf(files1.output)).toEqual(idsIn(lines))
    expect(computed.sort()).toEqual(idsIn(lines))
  })

  test('throws away what an earlier run asked for and this one does not', async () => {
    const { input, output } = await paths(tasks(20))
    const controller = new AbortController()
    const first = produce(redis, { input, output, defaults: { maxTokens: 1 }, signal: controller.signal })
    const queue = queueOf(await redis.connect(), MODEL.modelId)
    while ((await queue.getRanges(['wait'], 0, -1)).length < 20) await sleep(10)
    controller.abort()
    await expect(first).rejects.toMatchObject({ code: 'ERR_ABORTED' })
    const computed: (number | undefined)[] = []
    const second = produce(redis, { input, output, defaults: { maxTokens: 2 } }, { lines: 20 })
    await sleep(500)
    const worker = await startWorker(
      redis,
      echoing(1, 4, ({ options }) => void computed.push(options.maxTokens)),
    )
    await second
    await worker.end()
    expect(computed).toEqual(Array.from({ length: 20 }, () => 2))
    expect(await queue.getRanges(['wait', 'active', 'completed', 'failed'], 0, -1)).toEqual([])
  })

  test('shows jobs and workers, and lets go of a job', async () => {
    const { input, output } = await paths(tasks(20))
    const controller = new AbortController()
    const running = produce(redis, { input, output, signal: controller.signal })
    const worker = await startWorker(redis, echoing(60_000, 3), { graceMs: 0 })
    const connection = await redis.connect()
    let status = await queueStatus(connection)
    for (let waits = 0; waits < 200 && status.jobs[0]?.active !== 3; waits++) {
      await sleep(20)
      status = await queueStatus(connection)
    }
    expect(status.jobs).toEqual([
      expect.objectContaining({ job: 'job', modelId: 'echo', active: 3, waiting: 17, isProduced: true, workers: 1 }),
    ])
    expect(status.workers).toEqual([expect.objectContaining({ modelId: 'echo', concurrency: 3, pid: process.pid })])
    controller.abort()
    await expect(running).rejects.toMatchObject({ code: 'ERR_ABORTED' })
    await worker.end()
    status = await queueStatus(connection)
    expect(status.jobs).toEqual([expect.objectContaining({ active: 0, waiting: 20, isProduced: false, workers: 0 })])
    expect(status.workers).toEqual([])
    expect(await removeJob(connection, 'job')).toBe(20)
    expect(await removeJob(connection, 'job')).toBeUndefined()
    expect(await queueStatus(connection)).toEqual({ jobs: [], workers: [] })
  })
})

/** A job of 12 lines, and a worker that has begun four of them, which take `ms` each. */
async function begunJob(ms: number, options: Parameters<typeof startWorker>[2] = {}) {
  const lines = tasks(12)
  const { input, output } = await paths(lines)
  const running = produce(redis, { input, output })
  const begun: unknown[] = []
  const first = await startWorker(
    redis,
    echoing(ms, 4, ({ id }) => void begun.push(id)),
    options,
  )
  while (begun.length < 4) await sleep(10)
  return { lines, output, running, begun, first }
}

describe.skipIf(!hasRedis)('a worker', () => {
  test('that is asked to end finishes what it has begun', async () => {
    const { lines, output, running, first } = await begunJob(600)
    expect(await first.end()).toMatchObject({ answered: 4, returned: 0, active: 0 })
    const second = await startWorker(redis, echoing(1))
    await running
    expect(await second.end()).toMatchObject({ answered: 8 })
    expect(await idsOf(output)).toEqual(idsIn(lines))
  })

  test('gives back what it cannot finish in time, and others have it at once', async () => {
    const { lines, output, running, begun, first } = await begunJob(60_000, { graceMs: 100, lockMs: 60_000 })
    expect(await first.end()).toMatchObject({ answered: 0, returned: 4, active: 0 })
    const order: unknown[] = []
    const second = await startWorker(
      redis,
      echoing(1, 1, ({ id }) => void order.push(id)),
    )
    await running
    await second.end()
    // at the head of the queue
    expect(order.slice(0, 4).sort()).toEqual(begun.sort())
    expect(await idsOf(output)).toEqual(idsIn(lines))
  })

  test('whose engine fails gives its lines back and says so', async () => {
    const lines = tasks(6)
    const { input, output } = await paths(lines)
    const running = produce(redis, { input, output })
    const broken = await startWorker(redis, { concurrency: 2, answer: () => Promise.reject(new Error('broken engine')) })
    await expect(broken.result).rejects.toMatchObject({ message: 'broken engine' })
    const second = await startWorker(redis, echoing(1))
    expect(await running).toMatchObject({ succeeded: 6, failed: 0 })
    await second.end()
  })

  test('ends by itself when there is nothing to do', async () => {
    const { input, output } = await paths(tasks(5))
    const worker = await startWorker(redis, echoing(1), { idleMs: 1500 })
    await produce(redis, { input, output })
    expect(await worker.result).toMatchObject({ answered: 5 })
  })
})

describe.skipIf(!hasRedis)('models', () => {
  const other = { modelId: 'echo', digest: 'e'.repeat(64) }

  test('of other ids never meet; the producer tells who is there', async () => {
    const { input, output } = await paths(tasks(3))
    const worker = await startWorker(redis, echoing(1), { model: { ...other, modelId: 'another' } })
    const talk: string[] = []
    const controller = new AbortController()
    const running = produce(redis, { input, output, signal: controller.signal }, { onTalk: (line) => void talk.push(line) })
    while (talk.length === 0) await sleep(50)
    expect(talk).toEqual([expect.stringMatching(/^no worker has the model echo; workers are there for another:/)])
    controller.abort()
    await expect(running).rejects.toMatchObject({ code: 'ERR_ABORTED' })
    expect(await worker.end()).toMatchObject({ answered: 0, failed: 0 })
  })

  test('of the same id and different files are refused, by the producer', async () => {
    const { input, output } = await paths(tasks(3))
    const worker = await startWorker(redis, echoing(1), { model: other })
    await sleep(100)
    await expect(produce(redis, { input, output })).rejects.toMatchObject({ code: 'ERR_QUEUE_MODEL' })
    await worker.end()
  })

  test('and by the worker, whose refusal ends the job and not the line', async () => {
    const lines = tasks(3)
    const { input, output } = await paths(lines)
    const running = produce(redis, { input, output })
    const queue = queueOf(await redis.connect(), MODEL.modelId)
    while ((await queue.getRanges(['wait'], 0, -1)).length < 3) await sleep(10)
    const worker = await startWorker(redis, echoing(1), { model: other })
    await expect(running).rejects.toMatchObject({ code: 'ERR_QUEUE_MODEL' })
    expect(await worker.end()).toMatchObject({ answered: 0 })
    expect(await readOutput(output)).toEqual([])
    const right = await startWorker(redis, echoing(1))
    expect(await produce(redis, { input, output })).toMatchObject({ succeeded: 3 })
    await right.end()
  })

  test('a producer that names an id alone takes whoever has it', async () => {
    const { input, output } = await paths(tasks(3))
    const worker = await startWorker(redis, echoing(1), { model: other })
    expect(await produce(redis, { input, output }, { model: { modelId: 'echo', digest: undefined } })).toMatchObject({ succeeded: 3 })
    await worker.end()
  })

  test('a file is told from others by what is in it', async () => {
    const pocket = await identifyModel(POCKET_MODEL)
    const bytes = await readFile(POCKET_MODEL)
    await writeFile(files.path('copy.gguf'), bytes)
    expect(await identifyModel(files.path('copy.gguf'))).toEqual(pocket)
    bytes.fill(bytes[bytes.length - 5]! ^ 1, Math.floor(bytes.length / 2))
    await writeFile(files.path('tuned.gguf'), bytes)
    expect((await identifyModel(files.path('tuned.gguf'))).modelId).not.toBe(pocket.modelId)
    expect(await identifyModel(POCKET_MODEL, 'mine')).toEqual({ modelId: 'mine', digest: pocket.digest })
  })
})
