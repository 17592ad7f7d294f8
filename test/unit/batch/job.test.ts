/** Whole jobs over a small model: both forms, errors per line, resuming, duplicates, and the same answers whatever the concurrency. */
import { appendFileSync, existsSync } from 'node:fs'
import { readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { gzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type BatchOptions, runBatch } from '../../../src/batch/job.ts'
import type { BatchProgress } from '../../../src/batch/progress.ts'
import { type Engine, loadModel } from '../../../src/index.ts'
import { type BatchFiles, batchFiles, idOf, readOutput } from '../../fixtures/batch-files.ts'
import { encodeGguf, tinyGlm4moe } from '../../fixtures/build-gguf.ts'

let files: BatchFiles
let engine: Engine
let model: string

/** Prompts with a common beginning, some of them longer than others. */
const prompts = Array.from(
  { length: 24 },
  (_, index) => `the quick brown fox jumps over ${'and over '.repeat(index % 5)}dog number ${index}`,
)
const plain = prompts.map((prompt, index) => ({ id: `p${index}`, prompt }))
const defaults = { maxTokens: 12 }

beforeAll(async () => {
  files = await batchFiles()
  model = files.path('tiny.gguf')
  await writeFile(model, encodeGguf(tinyGlm4moe()))
  engine = await loadModel(model, { threads: 2, sequences: 8, kvTokens: 512, ubatch: 64 })
})
afterAll(async () => {
  await engine.close()
  await files[Symbol.asyncDispose]()
})

let runs = 0
async function run(lines: readonly unknown[], options: Partial<BatchOptions> = {}, on: Engine = engine) {
  const input = options.input ?? (await files.write(`in-${++runs}.jsonl`, lines))
  const output = options.output ?? files.path(`out-${runs}.jsonl`)
  const summary = await runBatch(on, { defaults, ...options, input, output })
  return { input, output, summary, answers: await readOutput(output) }
}

const textsOf = (answers: Awaited<ReturnType<typeof readOutput>>): Record<string, unknown> =>
  Object.fromEntries(answers.map((answer) => [String(idOf(answer)), answer.text]))

describe('answers', () => {
  test('are those of one task after the other, whatever the concurrency and with or without shared prefixes', async () => {
    const alone: Record<string, string> = {}
    for (const { id, prompt } of plain) alone[id] = (await engine.generate(prompt, { ...defaults, sharePrefix: false })).text
    for (const options of [{ maxConcurrency: 1 }, { maxConcurrency: 3 }, {}, { sharePrefix: false }]) {
      const { answers, summary } = await run(plain, options)
      expect(textsOf(answers)).toEqual(alone)
      expect(summary).toMatchObject({ lines: 24, earlier: 0, succeeded: 24, failed: 0 })
      expect(summary.tokens).toBe(answers.reduce((sum, { tokens = 0 }) => sum + tokens, 0))
    }
  })

  test('are the same when the cache holds one task at a time', async () => {
    const { answers: ample } = await run(plain)
    await using tight = await loadModel(model, { threads: 2, sequences: 8, kvTokens: 128, contextTokens: 128, ubatch: 64 })
    const { answers, summary } = await run(plain, {}, tight)
    expect(textsOf(answers)).toEqual(textsOf(ample))
    expect(summary.failed).toBe(0)
  })

  test('have the shape of the line that asked', async () => {
    const messages = [{ role: 'user', content: 'hello' }]
    const { answers, summary } = await run([
      { id: 5, prompt: 'hello' },
      { custom_id: 'c', method: 'POST', url: '/v1/chat/completions', body: { model: 'm', messages, max_tokens: 3 } },
      { custom_id: 't', method: 'POST', url: '/v1/completions', body: { prompt: 'hello', max_tokens: 3 } },
    ])
    const found = (id: unknown) => answers.find((answer) => idOf(answer) === id)!
    expect(found(5)).toMatchObject({ id: 5, text: expect.any(String) as string, finishReason: expect.any(String) as string })
    const response = found('c').response!
    expect(found('c')).toMatchObject({ id: expect.stringMatching(/^batch_req_/) as string, error: null, response: { status_code: 200 } })
    expect(response.body).toMatchObject({
      object: 'chat.completion',
      choices: [{ index: 0, message: { role: 'assistant', content: expect.any(String) as string }, finish_reason: 'length' }],
      usage: { completion_tokens: 3 },
    })
    expect(found('t').response!.body).toMatchObject({ object: 'text_completion', choices: [{ text: expect.any(String) as string }] })
    expect(summary.succeeded).toBe(3)
  })

  test('and errors: every line has one or the other, with its line number', async () => {
    const refused: number[] = []
    const lines = [
      '{broken',
      '',
      { id: 'long', prompt: 'x'.repeat(20_000) },
      { id: 'ok', prompt: 'hello' },
      { prompt: 'nobody' },
      { custom_id: 'e', method: 'POST', url: '/v1/embeddings', body: { input: 'x' } },
      { custom_id: 'n', method: 'POST', url: '/v1/completions', body: { prompt: 'x', n: 2 } },
      { id: 'token', prompt: [999_999] },
    ]
    const { answers, summary, input, output } = await run(lines, { onRefusal: ({ line }) => refused.push(line) })
    expect(summary).toMatchObject({ lines: 7, succeeded: 1, failed: 6 })
    expect(refused).toEqual([1, 5, 6, 7])
    const errors = answers.flatMap(({ error }) => (error ? [[error.line, error.code] as const] : [])).sort(([a], [b]) => a - b)
    expect(errors).toEqual([
      [1, 'ERR_BATCH_LINE'],
      [3, 'ERR_CONTEXT_OVERFLOW'],
      [5, 'ERR_BATCH_LINE'],
      [6, 'ERR_BATCH_LINE'],
      [7, 'ERR_BATCH_LINE'],
      [8, 'ERR_TOKEN_RANGE'],
    ])
    expect(answers.find(({ custom_id: id }) => id === 'n')!.response).toMatchObject({ status_code: 400, body: { error: { param: 'n' } } })
    // lines without an id are not doubled either
    const again = await run([], { input, output })
    expect(again.answers).toEqual(answers)
    expect(again.summary).toMatchObject({ earlier: 7, succeeded: 1, failed: 6, tokens: 0 })
  })
})

describe('going on', () => {
  test.each(['out.jsonl', 'out.jsonl.gz'])('behind what is there: %s', async (name) => {
    const { answers: whole } = await run(plain)
    const output = files.path(`resumed-${name}`)
    const input = await files.write('resumed.jsonl', plain)
    for (const limit of [5, 11]) await run([], { input, output, limit })
    expect((await readOutput(output)).length).toBe(11)
    // a torn line: with the next run it is gone
    await truncate(output, (await readFile(output)).length - 3)
    const { answers, summary } = await run([], { input, output })
    expect(textsOf(answers)).toEqual(textsOf(whole))
    expect(answers.length).toBe(24)
    expect(summary.earlier).toBeLessThan(11)
    await rm(output)
  })

  test('an abort writes what is done, and the next run does the rest', async () => {
    const controller = new AbortController()
    const { input, output } = await run(plain, { limit: 0 })
    const onProgress = ({ done }: BatchProgress): void => void (done > 0 && controller.abort())
    const slow = { input, output, maxConcurrency: 1, defaults: { maxTokens: 200 }, signal: controller.signal, onProgress }
    await expect(runBatch(engine, slow)).rejects.toMatchObject({ code: 'ERR_ABORTED' })
    const before = await readOutput(output)
    expect(before.length).toBeLessThan(24)
    expect(existsSync(`${output}.lock`)).toBe(false)
    const { answers } = await run([], { input, output })
    expect(new Set(answers.map(idOf)).size).toBe(24)
    expect(answers.length).toBe(24)
  })

  test('an abort counts also when the last line has begun', async () => {
    const controller = new AbortController()
    const input = await files.write('few.jsonl', plain.slice(0, 3))
    const running = runBatch(engine, {
      input,
      output: files.path('few-out.jsonl'),
      defaults: { maxTokens: 100 },
      signal: controller.signal,
      onProgress: () => controller.abort(),
    })
    await expect(running).rejects.toMatchObject({ code: 'ERR_ABORTED' })
  })

  test('an output with something else in it is refused and left alone', async () => {
    const { input, output } = await run(plain, { limit: 3 })
    const before = await readFile(output, 'utf8')
    for (const wrong of ['{"id":"stranger","text":"x"}\n', 'not json\n', '{"x":1}\n', `${before.split('\n')[0]}\n`]) {
      await writeFile(output, before + wrong)
      await expect(runBatch(engine, { input, output })).rejects.toMatchObject({
        code: 'ERR_BATCH_OUTPUT',
        message: expect.stringContaining('line 4') as string,
      })
      expect(await readFile(output, 'utf8')).toBe(before + wrong)
    }
  })
})

describe('before any work', () => {
  test('an id that is there twice is an error', async () => {
    const input = await files.write('twice.jsonl', [...plain, { custom_id: 'p3', url: '/v1/completions', body: {} }])
    const output = files.path('twice-out.jsonl')
    await expect(runBatch(engine, { input, output })).rejects.toMatchObject({
      code: 'ERR_BATCH_INPUT',
      message: expect.stringMatching(/"p3" of line 25 .* line 4 /) as string,
    })
    expect(existsSync(output)).toBe(false)
    expect(existsSync(`${output}.lock`)).toBe(false)
  })

  test('input and output must be two files, and the input one that is there', async () => {
    const input = await files.write('same.jsonl', plain)
    await expect(runBatch(engine, { input, output: input })).rejects.toMatchObject({ code: 'ERR_ARGUMENT' })
    await expect(runBatch(engine, { input: '/dev/null', output: files.path('x') })).rejects.toMatchObject({ code: 'ERR_FILE_ACCESS' })
    await expect(runBatch(engine, { input: files.path('none'), output: files.path('x') })).rejects.toMatchObject({
      code: 'ERR_FILE_ACCESS',
    })
    await expect(runBatch(engine, { input, output: files.path('x'), limit: -1 })).rejects.toMatchObject({ code: 'ERR_ARGUMENT' })
    await expect(runBatch(engine, { input, output: files.path('x'), maxConcurrency: 0 })).rejects.toMatchObject({ code: 'ERR_ARGUMENT' })
    await expect(runBatch(engine, { input, output: files.path('x'), defaults: { topP: 5 } })).rejects.toMatchObject({
      code: 'ERR_ARGUMENT',
    })
  })

  test('two jobs do not write one output', async () => {
    const input = await files.write('both.jsonl', plain)
    const output = files.path('both-out.jsonl')
    // long enough that one is still at work when the other looks a second time, after it has met a lock that does not yet say whose it is
    const job = { input, output, maxConcurrency: 1, defaults: { maxTokens: 200 } }
    const all = await Promise.allSettled([runBatch(engine, job), runBatch(engine, job)])
    expect(all.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
    expect((await readOutput(output)).length).toBe(24)
  })
})

test('an empty input gives an empty output; a gzipped one is read', async () => {
  expect((await run([])).answers).toEqual([])
  const input = files.path('in.jsonl.gz')
  await writeFile(input, gzipSync(plain.map((line) => JSON.stringify(line)).join('\r\n')))
  expect((await run([], { input })).answers.length).toBe(24)
})

test('an input that changes after it was checked ends the job', async () => {
  const input = await files.write('changing.jsonl', ['{broken', ...plain])
  const onRefusal = (): void => appendFileSync(input, '{"id":"late","prompt":"x"}\n')
  const output = files.path('changing-out.jsonl')
  await expect(runBatch(engine, { input, output, onRefusal })).rejects.toMatchObject({ code: 'ERR_BATCH_INPUT' })
  expect((await run([], { input, output })).answers.length).toBe(26)
})

test('an engine that fails ends the job, and another one goes on', async () => {
  const input = await files.write('failing.jsonl', plain)
  const output = files.path('failing-out.jsonl')
  const own = await loadModel(model, { threads: 2, sequences: 4 })
  const failing = runBatch(own, { input, output, onProgress: () => void own.close() })
  await expect(failing).rejects.toMatchObject({ code: 'ERR_CLOSED' })
  expect((await run([], { input, output })).answers.length).toBe(24)
})
