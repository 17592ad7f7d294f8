/**
 * A batch job that is killed again and again, at any moment, and started again: in the end every id is there once, and no line is torn.
 * TANDEM_KILLS=50 kills more often than the ordinary suite has time for.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type BatchFiles, batchFiles, idOf, readOutput } from '../fixtures/batch-files.ts'
import { answersSignals, cli, cliModels, startCli } from '../unit/cli/cli-process.ts'

const KILLS = Number(process.env['TANDEM_KILLS'] ?? 6)
/** More than all runs until the last could answer. */
const TASKS = 400 + KILLS * 200

let models: Awaited<ReturnType<typeof cliModels>>
let files: BatchFiles
beforeAll(async () => {
  models = await cliModels()
  files = await batchFiles()
})
afterAll(async () => {
  await models[Symbol.asyncDispose]()
  await files[Symbol.asyncDispose]()
})

const tasks = Array.from({ length: TASKS }, (_, index) =>
  index % 50 === 7
    ? '{broken'
    : index % 2 === 0
      ? { id: index, prompt: `tell me about ${index}` }
      : { custom_id: `c${index}`, method: 'POST', url: '/v1/completions', body: { prompt: `tell me about ${index}` } },
)

test.each(['out.jsonl', 'out.jsonl.gz'])('%s is complete after kills at random moments', { timeout: 600_000 }, async (name) => {
  const input = await files.write('in.jsonl', tasks)
  const output = files.path(name)
  const args = ['batch', models.tiny, input, '-o', output, '--threads', '1', '--max-tokens', '12', '-q', '--kv-tokens', '512']
  let random = 12_345
  let alive = 0
  let moved = 0
  let before = 0
  for (let kill = 0; kill < KILLS; kill++) {
    const { child, result } = startCli(args)
    let hasEnded = false
    void result.then(() => void (hasEnded = true))
    await answersSignals(child)
    random = (random * 1_103_515_245 + 12_345) % 2 ** 31
    await sleep(100 + (random / 2 ** 31) * 900)
    if (!hasEnded) alive++
    child.kill('SIGKILL')
    const { stderr } = await result
    expect(stderr).not.toMatch(/ERR_/)
    if (!name.endsWith('.gz')) {
      // counted without the line that may be torn
      const { stdout } = await cli(['batch', models.tiny, input, '-o', output, '--limit', '0', '--json', '-q'])
      expect(JSON.parse(stdout)).toMatchObject({ lines: 0 })
      const lines = (await readOutput(output)).length
      expect(lines).toBeGreaterThanOrEqual(before)
      if (lines > before) moved++
      before = lines
    }
  }
  // the kills came in the middle of work
  expect(alive).toBeGreaterThan(KILLS / 2)
  if (!name.endsWith('.gz')) expect(moved).toBeGreaterThan(0)
  const { code, stderr } = await cli(args)
  expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringMatching(/^error ERR_BATCH_FAILED: /) as string })
  const answers = await readOutput(output)
  expect(answers.length).toBe(TASKS)
  const expected = tasks.map((task, index) => (typeof task === 'string' ? `line ${index + 1}` : `${task.id ?? task.custom_id}`))
  const found = answers.map((answer) => `${idOf(answer) ?? `line ${answer.error!.line}`}`)
  expect(found.sort()).toEqual(expected.sort())
})

test('Ctrl-C ends it cleanly, and it goes on', async () => {
  const input = await files.write('in-interrupted.jsonl', tasks)
  const output = files.path('interrupted.jsonl')
  const args = ['batch', models.tiny, input, '-o', output, '--threads', '1', '--max-tokens', '12']
  const { child, result } = startCli(args)
  await answersSignals(child)
  await sleep(700)
  child.kill('SIGINT')
  expect(await result).toMatchObject({ code: 130, stdout: '', stderr: expect.stringMatching(/interrupted\n$/) as string })
  const before = await readOutput(output)
  expect(before.length).toBeLessThan(TASKS)
  expect((await cli([...args, '-q'])).code).toBe(1)
  const after = await readOutput(output)
  expect(after.slice(0, before.length)).toEqual(before)
  expect(after.length).toBe(TASKS)
})
