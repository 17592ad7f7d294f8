/** An output that cannot be written, from the start or in the middle of the job: a clean end, and it goes on when there is room again. */
import { spawn } from 'node:child_process'
import { hash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { chmod, writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type BatchFiles, batchFiles, readOutput } from '../fixtures/batch-files.ts'
import { cli, cliModels } from '../unit/cli/cli-process.ts'

const MAIN = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url))

let models: Awaited<ReturnType<typeof cliModels>>
let files: BatchFiles
let input: string
// ids that do not compress
const tasks = Array.from({ length: 120 }, (_, index) => ({ id: hash('sha256', `${index}`), prompt: `tell me about ${index}` }))
beforeAll(async () => {
  models = await cliModels()
  files = await batchFiles()
  input = await files.write('in.jsonl', tasks)
})
afterAll(async () => {
  await models[Symbol.asyncDispose]()
  await files[Symbol.asyncDispose]()
})

const args = (output: string): string[] => ['batch', models.tiny, input, '-o', output, '--threads', '1', '--max-tokens', '12', '-q']

test.skipIf(!existsSync('/dev/full'))('a device that is full', async () => {
  expect(await cli(args('/dev/full'))).toMatchObject({
    code: 1,
    stderr: expect.stringMatching(/^error ERR_FILE_ACCESS: \/dev\/full: the disk is full[^\n]*\n$/) as string,
  })
})

test.skipIf(!existsSync('/dev/null'))('a device that takes everything', async () => {
  expect(await cli(args('/dev/null'))).toMatchObject({ code: 0, stderr: '' })
})

/** Runs the command with a limit on the size of files, in kB: what is behind it cannot be written. */
async function limited(output: string, kilobytes: number): Promise<{ code: number | null; stderr: string }> {
  const child = spawn('bash', ['-c', `ulimit -f ${kilobytes}; exec "$0" "$@"`, process.execPath, MAIN, ...args(output)])
  let stderr = ''
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()))
  const code = await new Promise<number | null>((resolve) => child.on('close', resolve))
  return { code, stderr }
}

test.skipIf(process.platform === 'win32').each(['out.jsonl', 'out.jsonl.gz'])('no more room in the middle of %s', async (name) => {
  const output = files.path(name)
  const { code, stderr } = await limited(output, name.endsWith('.gz') ? 1 : 4)
  expect({ code, stderr }).toEqual({
    code: 1,
    stderr: expect.stringMatching(/^error ERR_FILE_ACCESS: [^\n]*out\.jsonl[^\n]*\n$/) as string,
  })
  expect(existsSync(`${output}.lock`)).toBe(false)
  // whole lines and nothing else
  const before = await readOutput(output)
  expect(before.length).toBeLessThan(tasks.length)
  if (!name.endsWith('.gz')) expect(before.length).toBeGreaterThan(5)
  expect(await cli(args(output))).toMatchObject({ code: 0, stderr: '' })
  const after = await readOutput(output)
  expect(after.slice(0, before.length)).toEqual(before)
  expect(after.map(({ id }) => id).sort()).toEqual(tasks.map(({ id }) => id).sort())
})

test('an output in no directory, and one that is a directory', async () => {
  for (const output of [files.path('none/out.jsonl'), files.path('')]) {
    expect(await cli(args(output))).toMatchObject({ code: 1, stderr: expect.stringMatching(/^error ERR_FILE_ACCESS: [^\n]*\n$/) as string })
  }
})

// root may write whatever the rights say
test.skipIf(process.getuid?.() === 0)('an output that is read-only', async () => {
  const output = files.path('read-only.jsonl')
  await writeFile(output, '')
  await chmod(output, 0o444)
  expect(await cli(args(output))).toMatchObject({ code: 1, stderr: expect.stringContaining('permission denied') as string })
  await chmod(output, 0o644)
  expect((await cli(args(output))).code).toBe(0)
})
