// Ctrl-C, whenever and in whatever command: a clean end, exit 130, nothing left running and no half-written file.
import { type ChildProcess } from 'node:child_process'
import { readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { temporaryDirectory } from '../fixtures/build-gguf.ts'
import { answersSignals, busyModel, startCli } from '../unit/cli/cli-process.ts'

let directory: Awaited<ReturnType<typeof temporaryDirectory>>
let model: string
beforeAll(async () => {
  directory = await temporaryDirectory()
  model = await busyModel(join(directory.path, 'busy.gguf'))
})
afterAll(() => directory[Symbol.asyncDispose]())

const INTERRUPTED = { code: 130, stderr: 'interrupted\n' }

const generating = (): string[] => ['generate', model, '--raw', '-p', 'the', '--max-tokens', '2000', '--threads', '2']
const firstOutput = (child: ChildProcess): Promise<unknown> => new Promise((resolve) => child.stdout?.once('data', resolve))

// importing, opening, loading, reading the prompt
test.each([0, 20, 50, 100, 150, 200, 300])('after %d ms, in whatever phase that is', async (ms) => {
  const { child, result } = startCli(generating())
  await answersSignals(child)
  await setTimeout(ms)
  child.kill('SIGINT')
  expect(await result).toMatchObject(INTERRUPTED)
})

test('while text is streaming', async () => {
  const { child, result } = startCli(generating())
  await firstOutput(child)
  child.kill('SIGINT')
  expect(await result).toMatchObject(INTERRUPTED)
})

test('SIGTERM ends as cleanly, with its own code', async () => {
  const { child, result } = startCli(generating())
  await firstOutput(child)
  child.kill('SIGTERM')
  expect(await result).toMatchObject({ code: 143, stderr: 'interrupted\n' })
})

test('--quiet keeps quiet', async () => {
  const { child, result } = startCli([...generating(), '--quiet'])
  await firstOutput(child)
  child.kill('SIGINT')
  expect(await result).toMatchObject({ code: 130, stderr: '' })
})

test('logits', async () => {
  const tokens = Array.from({ length: 2000 }, (_, index) => index % 1000).join(',')
  const { child, result } = startCli(['logits', model, '--tokens', tokens, '--full'])
  await firstOutput(child)
  child.kill('SIGINT')
  expect(await result).toMatchObject(INTERRUPTED)
})

test('perplexity', async () => {
  const text = join(directory.path, 'long.txt')
  writeFileSync(text, 'A long text that keeps the model busy for a good while. '.repeat(1000))
  const { child, result } = startCli(['perplexity', model, '--file', text])
  await answersSignals(child)
  await setTimeout(700)
  child.kill('SIGINT')
  expect(await result).toEqual({ ...INTERRUPTED, stdout: '' })
})

test('chat, while it answers and while it waits', async () => {
  const busy = startCli(['chat', model], { isInputOpen: true })
  busy.child.stdin?.write('hello\n')
  await firstOutput(busy.child)
  busy.child.kill('SIGINT')
  expect(await busy.result).toMatchObject(INTERRUPTED)
  const idle = startCli(['chat', model], { isInputOpen: true })
  await answersSignals(idle.child)
  await setTimeout(500)
  idle.child.kill('SIGINT')
  expect(await idle.result).toEqual({ ...INTERRUPTED, stdout: '' })
})

test.each([['generate'], ['tokenize']])('%s, while it waits for stdin', async (command) => {
  const { child, result } = startCli([command, model], { isInputOpen: true })
  await answersSignals(child)
  await setTimeout(200)
  child.kill('SIGINT')
  expect(await result).toEqual({ ...INTERRUPTED, stdout: '' })
})

test('synth, which removes what it has written', async () => {
  const folder = await temporaryDirectory()
  const { child, result } = startCli(['synth', '--preset', 'mid', '-o', join(folder.path, 'mid.gguf')])
  while (readdirSync(folder.path).length === 0) await setTimeout(10)
  await setTimeout(50)
  child.kill('SIGINT')
  expect(await result).toEqual({ ...INTERRUPTED, stdout: '' })
  expect(readdirSync(folder.path)).toEqual([])
  await folder[Symbol.asyncDispose]()
})

test('who asks twice does not wait', async () => {
  const { child, result } = startCli(generating())
  await firstOutput(child)
  child.kill('SIGINT')
  child.kill('SIGINT')
  expect((await result).code).toBe(130)
})
