import { existsSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { loadModel, POCKET_MODEL } from '../../../src/index.ts'
import { cli, cliModels, startCli } from './cli-process.ts'

let models: Awaited<ReturnType<typeof cliModels>>
let expected: { text: string; tokens: number; promptTokens: number }

beforeAll(async () => {
  models = await cliModels()
  const engine = await loadModel(models.tiny, { threads: 2 })
  expected = await engine.generate('hello there', { maxTokens: 20 })
  await engine.close()
})
afterAll(() => models[Symbol.asyncDispose]())

const args = (): string[] => ['generate', models.tiny, '--max-tokens', '20', '--threads', '2']

test('stdout has the text and nothing else, stderr a line about speed', async () => {
  const { code, stdout, stderr } = await cli([...args(), '--prompt', 'hello there'])
  expect({ code, stdout }).toEqual({ code: 0, stdout: `${expected.text}\n` })
  expect(stderr).toMatch(/^prompt \d+ tokens \([\d.]+\/s\), answer 20 tokens \([\d.]+\/s\), cut off at the limit\n$/)
})

test('--quiet says nothing', async () => {
  expect(await cli([...args(), '--quiet', '-p', 'hello there'])).toEqual({ code: 0, stdout: `${expected.text}\n`, stderr: '' })
})

test('--json is one line with the promised fields', async () => {
  const { stdout } = await cli([...args(), '-p', 'hello there', '--json'])
  expect(stdout.indexOf('\n')).toBe(stdout.length - 1)
  const { timings, ...rest } = JSON.parse(stdout) as { timings: Record<string, number> }
  const { text, promptTokens, tokens } = expected
  expect(rest).toEqual({ text, promptTokens, tokens, finishReason: 'length' })
  expect(Object.keys(timings)).toEqual(['promptMs', 'generateMs', 'promptTokensPerSecond', 'tokensPerSecond'])
})

test('the prompt may come from stdin, its last newline left out', async () => {
  expect((await cli([...args(), '-q'], { input: 'hello there\n' })).stdout).toBe(`${expected.text}\n`)
  expect((await cli([...args(), '-q', '--prompt', '-'], { input: 'hello there' })).stdout).toBe(`${expected.text}\n`)
})

test('an empty stdin is no prompt', async () => {
  expect(await cli(args(), { input: '' })).toMatchObject({ code: 2, stdout: '' })
})

test('a raw prompt is taken as it is', async () => {
  const engine = await loadModel(models.tiny, { threads: 2 })
  const { text } = await engine.generate('hello <|user|>', { maxTokens: 20, raw: true })
  await engine.close()
  expect((await cli([...args(), '-q', '--raw', '-p', 'hello <|user|>'])).stdout).toBe(`${text}\n`)
})

test('stop texts end the answer', async () => {
  const stop = expected.text.slice(5, 8)
  const { stdout } = await cli([...args(), '-p', 'hello there', '--json', '--stop', 'nowhere', '--stop', stop])
  expect(JSON.parse(stdout)).toMatchObject({ text: expected.text.slice(0, expected.text.indexOf(stop)), finishReason: 'stop' })
})

test('the same seed gives the same text, also with the pool’s other options', async () => {
  const sampled = [...args(), '-q', '-p', 'hello', '--temperature', '2', '--top-k', '50', '--top-p', '0.95', '--min-p', '0.01', '--seed']
  const one = await cli([...sampled, '5'])
  const same = await cli([
    ...sampled,
    '5',
    '--threads',
    '3',
    '--ubatch',
    '4',
    '--context',
    '64',
    '--kv-tokens',
    '64',
    '--repetition-penalty',
    '1',
  ])
  const other = await cli([...sampled, '6'])
  expect(same.stdout).toBe(one.stdout)
  expect(other.stdout).not.toBe(one.stdout)
})

test('text comes while the model is still working', async () => {
  const { child, result } = startCli(['generate', models.tiny, '-q', '-p', 'hello', '--threads', '1', '--max-tokens', '200'])
  let pieces = 0
  child.stdout?.on('data', () => pieces++)
  expect((await result).code).toBe(0)
  expect(pieces).toBeGreaterThan(1)
})

const isPocketThere = existsSync(POCKET_MODEL)
if (!isPocketThere) process.stderr.write('SKIPPED: the bundled model is not in models/\n')

test.skipIf(!isPocketThere)('without anything, the bundled model tells a story', async () => {
  const { code, stdout, stderr } = await cli(['generate'])
  expect(code).toBe(0)
  expect(stdout.length).toBeGreaterThan(100)
  expect(stderr).toMatch(/^no --prompt, so the bundled model is asked: .*\nprompt .*\n$/)
})

test.skipIf(!isPocketThere)('a pipe that stays open and silent does not keep it waiting', async () => {
  const { child, result } = startCli(['generate', '--max-tokens', '3'], { isInputOpen: true })
  expect(await result).toMatchObject({ code: 0, stdout: expect.stringMatching(/./) as string })
  child.stdin?.destroy()
})
