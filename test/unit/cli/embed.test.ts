// `tandem embed` gives the library's vectors, in order, each as if it had been alone.
import { writeFile } from 'node:fs/promises'
import { setTimeout } from 'node:timers/promises'
import { gzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { embedAll, type EmbedItem } from '../../../src/cli/embed-lines.ts'
import { type EmbedOptions, type Engine, loadModel, TandemError } from '../../../src/index.ts'
import { type BatchFiles, batchFiles } from '../../fixtures/batch-files.ts'
import { microModel, nmse } from '../../fixtures/engine-micro.ts'
import { standIn } from '../../fixtures/stand-in.ts'
import { cli, cliModels } from './cli-process.ts'

interface Row {
  readonly id: string | number | null
  readonly tokens?: number
  readonly embedding?: readonly number[]
  readonly error?: { readonly code: string; readonly message: string; readonly line: number }
}

let models: Awaited<ReturnType<typeof cliModels>>
let files: BatchFiles
let engine: Engine
beforeAll(async () => {
  models = await cliModels()
  files = await batchFiles()
  engine = await loadModel(models.tiny, { threads: 2 })
})
afterAll(async () => {
  await engine.close()
  await models[Symbol.asyncDispose]()
  await files[Symbol.asyncDispose]()
})

// of very different lengths, so that they end in another order than they begin
const texts = Array.from({ length: 40 }, (_, index) => `text ${index} ${'hello '.repeat((index * 7) % 23)}`.trim())
const rowsOf = (stdout: string): Row[] =>
  stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Row)

/** The library's vectors, one text after the other. */
async function expected(options: EmbedOptions, of: readonly string[] = texts): Promise<number[][]> {
  const vectors: number[][] = []
  for (const text of of) vectors.push([...(await engine.embed([text], options))[0]!])
  return vectors
}
const exact = (embedding: readonly number[] | undefined): number[] => (embedding ?? []).map(Math.fround)

const options = ['--threads', '2', '--max-concurrency', '4']

test.each([
  ['the mean of all tokens, of length 1', [], {}],
  ['the mean, as long as it is', ['--no-normalize'], { normalize: false }],
  ['the last token', ['--pooling', 'last', '--normalize'], { pooling: 'last' }],
] as const)('lines of a file: %s', async (_, flags, library) => {
  const input = files.path('lines.txt')
  await writeFile(input, texts.join('\n'))
  const { code, stdout, stderr } = await cli(['embed', models.tiny, '--file', input, '--json', ...options, ...flags])
  expect(code).toBe(0)
  const rows = rowsOf(stdout)
  expect(rows.map(({ id }) => id)).toEqual(texts.map((__, index) => index + 1))
  expect(rows.map(({ embedding }) => exact(embedding))).toEqual(await expected(library))
  expect(rows.map(({ tokens }) => tokens)).toEqual(texts.map((text) => engine.tokenizer.encode(text).length))
  expect(stderr).toMatch(/^40 texts: 40 embedded, 0 failed, [\d,]+ tokens in [\d.]+ s \([\d.]+\/s\)\n$/)
})

test('without --json a line of numbers for each; lines end as they may, and blank ones are none', async () => {
  const input = 'one text\r\n\n  \nanother'
  const { code, stdout } = await cli(['embed', models.tiny, '-q', ...options], { input })
  expect(code).toBe(0)
  const rows = stdout.split('\n')
  expect(rows.length).toBe(3)
  const numbers = rows.slice(0, 2).map((line) => line.split(' ').map(Number).map(Math.fround))
  expect(numbers).toEqual(await expected({}, ['one text', 'another']))
  expect((await cli(['embed', models.tiny, '-q', ...options, '-t', 'one text', '--text', 'another'])).stdout).toBe(stdout)
})

test('JSON lines: ids go with their vectors, and what cannot be embedded is an error of its line', async () => {
  const input = files.path('in.jsonl.gz')
  const lines = [
    { id: 'a', text: texts[3] },
    { text: texts[4] },
    { id: 7 },
    texts[5],
    { id: 'long', text: 'hello '.repeat(3000) },
    [1],
    { id: {}, text: 'x' },
    { id: 'empty', text: '' },
    { id: 'z', text: texts[6] },
  ].map((line) => JSON.stringify(line))
  lines.splice(1, 0, '{"id": oops')
  await writeFile(input, gzipSync(lines.join('\n')))
  const { code, stdout, stderr } = await cli(['embed', models.tiny, '-f', input, '--json', ...options])
  expect(code).toBe(1)
  const rows = rowsOf(stdout)
  expect(rows.map(({ id, error }) => [id, error?.code, error?.line])).toEqual([
    ['a', undefined, undefined],
    [null, 'ERR_BATCH_LINE', 2],
    [3, undefined, undefined],
    [7, 'ERR_BATCH_LINE', 4],
    [5, undefined, undefined],
    ['long', 'ERR_CONTEXT_OVERFLOW', 6],
    [null, 'ERR_BATCH_LINE', 7],
    [null, 'ERR_BATCH_LINE', 8],
    ['empty', 'ERR_BATCH_LINE', 9],
    ['z', undefined, undefined],
  ])
  const vectors = rows.flatMap(({ embedding }) => (embedding ? [exact(embedding)] : []))
  expect(vectors).toEqual(await expected({}, texts.slice(3, 7)))
  expect(stderr).toMatch(/line 2: not JSON: [^\n]*\n[^\n]*line 4: text: must be a text\n/)
  expect(stderr).toMatch(/\nerror ERR_BATCH_FAILED: 6 of 10 texts could not be embedded\n$/)
})

test.each([
  [['--text', 'x', '--file', 'y'], 2, '--text and --file cannot go together'],
  [[], 2, 'there is no text'],
  [['--text', 'x', '--pooling', 'max'], 2, 'Allowed choices are mean, last'],
  [['--file', '/nowhere/texts.txt'], 1, 'ERR_FILE_ACCESS: /nowhere/texts.txt'],
])('embed %j', async (args, code, message) => {
  const result = await cli(['embed', ...args])
  expect({ code: result.code, stdout: result.stdout }).toEqual({ code, stdout: '' })
  expect(result.stderr).toContain(message)
})

test.skipIf(!standIn)('on a GPU too', async () => {
  const some = texts.slice(0, 5)
  // of a shape that kernels of GPUs take, and without activations in 8 bits
  await using micro = await microModel({ format: 'F16', expertFormat: 'F16' })
  await using onCpu = await loadModel(micro.path, { threads: 2 })
  for (const [pipeline, pooling] of [
    ['hybrid', 'mean'],
    ['gpu', 'last'],
  ] as const) {
    const flags = ['--pipeline', pipeline, '--pooling', pooling, '--json', '-q', ...options]
    const { code, stdout } = await cli(['embed', micro.path, ...some.flatMap((text) => ['-t', text]), ...flags])
    expect(code).toBe(0)
    const vectors = await onCpu.embed(some, { pooling })
    for (const [index, { embedding }] of rowsOf(stdout).entries()) expect(nmse(embedding!, vectors[index]!)).toBeLessThan(1e-6)
  }
})

describe('a stream of texts', () => {
  /** As much of an engine as is used; a text's vector is its number, which takes as long as it says. */
  const fake = (sequences: number, failing = -1) => {
    let busy = 0
    const most = { busy: 0 }
    const embed = async (batch: readonly (readonly number[])[]): Promise<Float32Array[]> => {
      const number = batch[0]![0]!
      most.busy = Math.max(most.busy, ++busy)
      await setTimeout((number * 7) % 11)
      busy--
      if (number === failing) throw new TandemError('ERR_WORKER_DIED', 'on purpose')
      return [Float32Array.of(number)]
    }
    const tokenizer = { encode: (text: string) => [Number(text)] }
    return { engine: { plan: { limits: { sequences } }, tokenizer, embed } as unknown as Engine, most }
  }

  test('is taken no further than what is worked on needs, and given back in order', async () => {
    const { engine: each, most } = fake(3)
    let taken = 0
    let given = 0
    const items = function* (): Generator<EmbedItem> {
      for (let line = 1; line <= 60; line++) {
        taken++
        yield { id: line, line, end: 0, text: String(line) }
      }
    }
    const vectors: number[] = []
    for await (const embedded of embedAll(each, items(), {})) {
      given++
      expect(taken - given).toBeLessThanOrEqual(3 * 4 + 1)
      if ('vector' in embedded) vectors.push(embedded.vector[0]!)
    }
    expect(vectors).toEqual(Array.from({ length: 60 }, (_, index) => index + 1))
    expect(most.busy).toBe(3)
  })

  test('ends with the failure of an engine, in its turn', async () => {
    const { engine: each } = fake(4, 5)
    const items = Array.from({ length: 30 }, (_, index): EmbedItem => ({ id: index, line: index, end: 0, text: String(index) }))
    const seen: unknown[] = []
    const all = async (): Promise<void> => {
      for await (const { id } of embedAll(each, items, {})) seen.push(id)
    }
    await expect(all()).rejects.toMatchObject({ code: 'ERR_WORKER_DIED' })
    expect(seen).toEqual([0, 1, 2, 3, 4])
  })
})
