import { truncate } from 'node:fs/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { openModelFile } from '../../../src/index.ts'
import { createTokenizer, type Tokenizer } from '../../../src/text/tokenizer.ts'
import { cli, cliModels } from './cli-process.ts'

let models: Awaited<ReturnType<typeof cliModels>>
let tokenizer: Tokenizer
beforeAll(async () => {
  models = await cliModels()
  tokenizer = createTokenizer((await openModelFile(models.tiny)).metadata)
})
afterAll(() => models[Symbol.asyncDispose]())

const idsOf = (stdout: string): unknown => (JSON.parse(stdout) as { ids: unknown }).ids

test('--json has the ids alone', async () => {
  const { code, stdout, stderr } = await cli(['tokenize', models.tiny, '--text', 'the rain, naïve', '--json'])
  expect({ code, stderr, stdout }).toEqual({
    code: 0,
    stderr: '',
    stdout: `${JSON.stringify({ ids: tokenizer.encode('the rain, naïve') })}\n`,
  })
})

test('stdin is taken as it is', async () => {
  expect(idsOf((await cli(['tokenize', models.tiny, '--json'], { input: 'a text\n' })).stdout)).toEqual(tokenizer.encode('a text\n'))
})

test('a person sees ids with their pieces', async () => {
  expect((await cli(['tokenize', models.tiny, '-t', 'a\n'])).stdout).toBe(
    `${tokenizer.encode('a')[0]}  "a"\n${tokenizer.encode('\n')[0]}  "\\n"\n`,
  )
})

test('control tokens are text unless asked for', async () => {
  const plain = await cli(['tokenize', models.tiny, '-t', '<|user|>', '--json'])
  const parsed = await cli(['tokenize', models.tiny, '-t', '<|user|>', '--json', '--parse-special'])
  expect(idsOf(plain.stdout)).toEqual(tokenizer.encode('<|user|>'))
  expect(idsOf(parsed.stdout)).toEqual(tokenizer.encode('<|user|>', { parseSpecial: true }))
  expect(idsOf(parsed.stdout)).toHaveLength(1)
})

test('an empty text has no tokens', async () => {
  expect(idsOf((await cli(['tokenize', models.tiny, '-t', '', '--json'])).stdout)).toEqual([])
})

test('a file without a vocabulary says so', async () => {
  const { code, stderr } = await cli(['tokenize', models.tokensOnly, '-t', 'x'])
  expect(code).toBe(1)
  expect(stderr).toMatch(/^error ERR_TOKENIZER_\w+: .*\n$/)
})

test('a truncated file is told before anything is printed', async () => {
  await using copies = await cliModels()
  await truncate(copies.tiny, 5000)
  expect(await cli(['tokenize', copies.tiny, '-t', 'x'])).toMatchObject({
    code: 1,
    stdout: '',
    stderr: expect.stringMatching(/^error ERR_GGUF_TRUNCATED/) as string,
  })
})
