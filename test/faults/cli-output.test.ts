// A reader that goes away, is slow, or cannot take the output.
import { closeSync, existsSync, openSync } from 'node:fs'
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { temporaryDirectory } from '../fixtures/build-gguf.ts'
import { busyModel, startCli } from '../unit/cli/cli-process.ts'

let directory: Awaited<ReturnType<typeof temporaryDirectory>>
let model: string
beforeAll(async () => {
  directory = await temporaryDirectory()
  model = await busyModel(join(directory.path, 'busy.gguf'))
})
afterAll(() => directory[Symbol.asyncDispose]())

const TOKENS = Array.from({ length: 600 }, (_, index) => index % 1000).join(',')

describe('a reader that had enough ends the command quietly:', () => {
  test.each([
    ['generate', () => ['generate', model, '--raw', '-p', 'the', '--max-tokens', '2000']],
    ['logits', () => ['logits', model, '--full', '--tokens', TOKENS]],
  ])('%s', async (_, args) => {
    const { child, result } = startCli(args())
    child.stdout?.once('data', () => child.stdout?.destroy())
    expect(await result).toMatchObject({ code: 0, stderr: '' })
  })
})

test('a slow reader gets everything', async () => {
  const { child, result } = startCli(['logits', model, '--full', '--tokens', TOKENS])
  child.stdout?.pause()
  await setTimeout(2000)
  child.stdout?.resume()
  const { code, stdout } = await result
  const { positions } = JSON.parse(stdout) as { positions: { logits: number[] }[] }
  expect({ code, positions: positions.length, logits: positions.at(-1)!.logits.length }).toEqual({ code: 0, positions: 600, logits: 1024 })
  expect(stdout.length).toBeGreaterThan(4e6)
})

test.skipIf(!existsSync('/dev/full'))('a full disk is an error', async () => {
  const full = openSync('/dev/full', 'w')
  const main = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url))
  const child = spawn(process.execPath, [main, 'inspect', model], { stdio: ['ignore', full, 'pipe'] })
  let stderr = ''
  child.stderr!.on('data', (chunk: Buffer) => (stderr += chunk.toString()))
  const code = await new Promise((resolve) => child.on('close', resolve))
  closeSync(full)
  expect({ code, stderr }).toEqual({
    code: 1,
    stderr: expect.stringMatching(/^error ERR_FILE_ACCESS: stdout cannot be written: .*\n$/) as string,
  })
})
