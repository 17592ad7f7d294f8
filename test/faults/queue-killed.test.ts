/**
 * A job over two workers on a Redis, all of them killed again and again at any moment: in the end every id is there once, and no line is torn.
 * TANDEM_KILLS=50 kills more often than the ordinary suite has time for.
 */
import { readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type BatchFiles, batchFiles, idOf, readOutput } from '../fixtures/batch-files.ts'
import { hasRedis, startRedis, type TestRedis } from '../fixtures/redis.ts'
import { answersSignals, cliModels, startCli } from '../unit/cli/cli-process.ts'

const KILLS = Number(process.env['TANDEM_KILLS'] ?? 6)
/** More than all workers together could answer until the last kill. */
const TASKS = 600 + KILLS * 300
/** Who dies in turn; two workers and a producer are never all alive for long. */
const VICTIMS = [[0], [2], [1], [0, 2], [1], [0, 1]] as const

let models: Awaited<ReturnType<typeof cliModels>>
let files: BatchFiles
let redis: TestRedis
beforeAll(async () => {
  if (!hasRedis) return
  models = await cliModels()
  files = await batchFiles()
  redis = await startRedis()
})
afterAll(async () => {
  await models?.[Symbol.asyncDispose]()
  await files?.[Symbol.asyncDispose]()
  await redis?.[Symbol.asyncDispose]()
})

const tasks = Array.from({ length: TASKS }, (_, index) =>
  index % 50 === 7
    ? '{broken'
    : index % 2 === 0
      ? { id: index, prompt: `tell me about ${index}` }
      : { custom_id: `c${index}`, method: 'POST', url: '/v1/completions', body: { prompt: `tell me about ${index}` } },
)

test.skipIf(!hasRedis)('a job is complete after kills at random moments', { timeout: 600_000 }, async () => {
  const input = await files.write('in.jsonl', tasks)
  const output = files.path('out.jsonl')
  const queue = ['--queue', redis.url, '-q']
  const working = ['worker', models.tiny, ...queue, '--threads', '1', '--kv-tokens', '512', '--lock', '1', '--grace', '5']
  const producing = ['batch', models.tiny, input, '-o', output, ...queue, '--producer', '--max-tokens', '12', '--queue-lines', '200']
  const start = (index: number) => {
    const party = { ...startCli(index === 2 ? producing : working), hasEnded: false }
    void party.result.then(() => (party.hasEnded = true))
    return party
  }
  const parties = [0, 1, 2].map(start)
  let random = 54_321
  let killed = 0
  let moved = 0
  let before = 0
  for (let round = 0; killed < KILLS; round++) {
    const victims = VICTIMS[round % VICTIMS.length]!
    for (const index of victims) await answersSignals(parties[index]!.child)
    // every other time as soon as there is something to destroy, otherwise at whatever moment it is
    const mostWaits = round % 2 === 0 ? 400 : 0
    for (let waits = 0; waits < mostWaits && (await linesOf(output)) <= before; waits++) await sleep(50)
    random = (random * 1_103_515_245 + 12_345) % 2 ** 31
    await sleep((random / 2 ** 31) * 1200)
    for (const index of victims) {
      // the job is not over, so all are at work
      expect(parties[index]!.hasEnded).toBe(false)
      parties[index]!.child.kill('SIGKILL')
      killed++
    }
    for (const index of victims) {
      expect((await parties[index]!.result).stderr).not.toMatch(/ERR_/)
      parties[index] = start(index)
    }
    const lines = await linesOf(output)
    if (lines > before) moved++
    before = lines
  }
  // the kills came in the middle of work
  expect(moved).toBeGreaterThan(KILLS / 4)
  expect(before).toBeLessThan(TASKS)
  expect(await parties[2]!.result).toMatchObject({ code: 1, stderr: expect.stringMatching(/^error ERR_BATCH_FAILED: /) as string })
  for (const { child, result } of parties.slice(0, 2)) {
    child.kill('SIGTERM')
    expect(await result).toMatchObject({ code: 0, stderr: '' })
  }
  const answers = await readOutput(output)
  expect(answers.length).toBe(TASKS)
  const expected = tasks.map((task, index) => (typeof task === 'string' ? `line ${index + 1}` : `${task.id ?? task.custom_id}`))
  expect(answers.map((answer) => `${idOf(answer) ?? `line ${answer.error!.line}`}`).sort()).toEqual(expected.sort())
  // nobody was blamed for a line that had bad luck
  const codes = new Set(answers.flatMap(({ error }) => (error ? [error.code] : [])))
  expect([...codes]).toEqual(['ERR_BATCH_LINE'])
  const connection = await redis.connect()
  expect(await connection.redis.keys('tandem-queue:*/*')).toEqual([])
})

/** Whole lines that are there; behind them one may be torn, as nobody has come again to cut it off. */
const linesOf = async (output: string): Promise<number> => (await readFile(output, 'utf8').catch(() => '')).split('\n').length - 1
