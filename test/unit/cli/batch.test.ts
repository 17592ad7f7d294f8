import { existsSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { gzipSync } from 'node:zlib'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { durationText, progressText } from '../../../src/cli/batch-text.ts'
import { type BatchFiles, batchFiles, readOutput } from '../../fixtures/batch-files.ts'
import { cli, cliModels } from './cli-process.ts'

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

const tasks = Array.from({ length: 9 }, (_, index) => ({ id: `t${index}`, prompt: `hello number ${index}` }))
const options = ['--threads', '2', '--max-tokens', '6']

test('answers every line, and says nothing on stdout', async () => {
  const input = await files.write('in.jsonl', tasks)
  const output = files.path('out.jsonl')
  const { code, stdout, stderr } = await cli(['batch', models.tiny, input, '-o', output, ...options])
  expect({ code, stdout }).toEqual({ code: 0, stdout: '' })
  expect(stderr).toMatch(/^9 lines: 9 answered, 0 failed, \d+ tokens in .*\/s\), \d+ prompt tokens \(\d+ shared\)\n$/)
  expect((await readOutput(output)).map(({ id }) => id).sort()).toEqual(tasks.map(({ id }) => id))
  expect(existsSync(`${output}.lock`)).toBe(false)
  // done already: nothing is loaded, not even looked for
  const again = await cli(['batch', files.path('no-model.gguf'), input, '-o', output, '--json', '-q'])
  expect(again).toMatchObject({ code: 0, stderr: '' })
  expect(JSON.parse(again.stdout)).toMatchObject({ lines: 9, earlier: 9, succeeded: 9, failed: 0, tokens: 0 })
})

test('lines that fail are told with their numbers and in the exit code; --json has the summary alone', async () => {
  const input = await files.write('bad.jsonl', ['{', ...tasks, { id: 'x' }])
  const output = files.path('bad-out.jsonl.gz')
  const { code, stdout, stderr } = await cli(['batch', models.tiny, input, '-o', output, '--json', ...options, '--max-concurrency', '4'])
  expect(code).toBe(1)
  expect(Object.keys(JSON.parse(stdout) as object)).toEqual([
    ...['lines', 'earlier', 'succeeded', 'failed', 'promptTokens', 'reusedTokens', 'tokens', 'preemptions', 'seconds', 'tokensPerSecond'],
  ])
  expect(stderr).toMatch(/: line 1: not JSON: [^\n]*\n[^\n]*: line 11: prompt: must be one text/)
  expect(stderr).toMatch(/\nerror ERR_BATCH_FAILED: 2 of 11 lines failed: see "error" in .*\n$/)
  expect((await readOutput(output)).length).toBe(11)
})

test('--dry-run checks and loads nothing', async () => {
  const input = files.path('dry.jsonl.gz')
  await writeFile(input, gzipSync(tasks.map((task) => JSON.stringify(task)).join('\n')))
  expect(await cli(['batch', 'no-model.gguf', input, '--dry-run', '--json', '-q'])).toEqual({
    code: 0,
    stdout: '{"lines":9,"valid":9,"invalid":0}\n',
    stderr: '',
  })
  const bad = await files.write('dry-bad.jsonl', [...tasks, ...Array.from({ length: 30 }, () => 'wrong')])
  const { code, stderr } = await cli(['batch', bad, '--dry-run'])
  expect(code).toBe(1)
  expect(stderr).toMatch(/and 10 more\n[^\n]*: 39 lines, 30 of them not valid\nerror ERR_BATCH_LINE: [^\n]*\n$/)
  const twice = await files.write('dry-twice.jsonl', [...tasks, tasks[4]])
  expect(await cli(['batch', twice, '--dry-run'])).toMatchObject({
    code: 1,
    stderr: expect.stringMatching(/^error ERR_BATCH_INPUT: .*"t4" of line 10 .* line 5 /) as string,
  })
})

test('--limit takes the first tasks, and without it the rest follow', async () => {
  const input = await files.write('limit.jsonl', tasks)
  const output = files.path('limit-out.jsonl')
  expect((await cli(['batch', models.tiny, input, '-o', output, ...options, '--limit', '4', '-q'])).code).toBe(0)
  expect((await readOutput(output)).length).toBe(4)
  expect((await cli(['batch', models.tiny, input, '-o', output, ...options, '-q', '--no-prefix-sharing'])).code).toBe(0)
  expect((await readOutput(output)).length).toBe(9)
})

test.each([
  [[], 'there is no input'],
  [['in.jsonl'], '--output is missing'],
  [['in.jsonl', '-o', 'x', '--max-concurrency', '0'], 'whole number from 1'],
  [['in.jsonl', '-o', 'x', '--top-p', '7'], '--top-p: must be above 0 up to 1'],
  [['a', 'b', 'c', '-o', 'x'], 'too many arguments'],
])('wrong usage: batch %j', async (args, message) => {
  expect(await cli(['batch', ...args])).toEqual({ code: 2, stdout: '', stderr: expect.stringContaining(message) as string })
})

test('what a person sees of a running job', () => {
  const progress = { done: 5, total: 10, failed: 1, tokens: 100, tokensPerSecond: 123.4, etaMs: 187_000 }
  expect(progressText('answering', progress)).toBe('answering [========        ] 5 of 10, 1 failed, 123 tokens/s, 3:07 left')
  expect(progressText('answering', { ...progress, done: 0, etaMs: undefined })).toMatch(/ 0 of 10, 1 failed, 123 tokens\/s$/)
  expect([0, 59_600, 3_723_000].map(durationText)).toEqual(['0:00', '1:00', '1:02:03'])
})
