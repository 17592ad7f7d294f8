/** A million lines, and one very long one: memory does not follow the input. */
import { once } from 'node:events'
import { createWriteStream } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type BatchFiles, batchFiles } from '../fixtures/batch-files.ts'
import { cli } from '../unit/cli/cli-process.ts'

const MB = 1_000_000

let files: BatchFiles
beforeAll(async () => {
  files = await batchFiles()
})
afterAll(() => files[Symbol.asyncDispose]())

/** Runs the command and returns the most memory that the process had, bytes. */
async function peak(args: readonly string[]): Promise<{ code: number | null; stdout: string; bytes: number }> {
  const report = `data:text/javascript,${encodeURIComponent("process.on('exit', () => process._rawDebug('peak ' + process.resourceUsage().maxRSS))")}`
  const { code, stdout, stderr } = await cli(args, { env: { NODE_OPTIONS: `--import ${report}` } })
  return { code, stdout, bytes: Number(/^peak (\d+)$/m.exec(stderr)?.[1]) * 1024 }
}

async function writeMany(path: string, count: number, lineOf: (index: number) => string): Promise<string> {
  const stream = createWriteStream(path)
  for (let index = 0; index < count; index += 10_000) {
    let text = ''
    for (let each = index; each < Math.min(count, index + 10_000); each++) text += lineOf(each)
    if (!stream.write(text)) await once(stream, 'drain')
  }
  stream.end()
  await once(stream, 'close')
  return path
}

test('a million lines are checked in less than 200 MB more than one', { timeout: 120_000 }, async () => {
  const lineOf = (index: number): string => `{"id":"request-${index}","prompt":"What is ${index} + 1?"}\n`
  const one = await peak(['batch', await writeMany(files.path('one.jsonl'), 1, lineOf), '--dry-run', '--json', '-q'])
  const million = await peak(['batch', await writeMany(files.path('million.jsonl'), 1e6, lineOf), '--dry-run', '--json', '-q'])
  expect(million).toMatchObject({ code: 0, stdout: '{"lines":1000000,"valid":1000000,"invalid":0}\n' })
  console.log(`a million lines: ${((million.bytes - one.bytes) / MB).toFixed(0)} MB over a baseline of ${(one.bytes / MB).toFixed(0)} MB`)
  expect(million.bytes - one.bytes).toBeLessThan(200 * MB)
})

test('a line of 300 MB is an error of that line', { timeout: 120_000 }, async () => {
  const path = await writeMany(files.path('long.jsonl'), 300, (index) =>
    index === 0 ? '{"id":"a","prompt":"b"}\n{"id":"' : 'x'.repeat(MB),
  )
  const { code, stdout, bytes } = await peak(['batch', path, '--dry-run', '--json', '-q'])
  expect({ code, stdout }).toEqual({ code: 1, stdout: '{"lines":2,"valid":1,"invalid":1}\n' })
  expect(bytes).toBeLessThan(400 * MB)
})
