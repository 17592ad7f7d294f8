/** The examples run, as they are, and print what they promise. */
import { spawn } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

const folder = fileURLToPath(new URL('../../../examples/', import.meta.url))

/** What an example must print, on stdout. */
const PROMISES: Readonly<Record<string, readonly RegExp[]>> = {
  'batch.ts': [/^20 of 20 answered$/m, /^What is 19 \+ 57\? 76$/m],
  'chat.ts': [/27 \+ 48\? 75 \(0 tokens/, /12\. 7 12 31 90 \((?!0 )\d+ tokens/, /backwards\. eseehc/],
  'custom-pipeline.ts': [/^[^e]+\na story without 'e'; its 120 tokens had a probability of 0\.\d\d on average$/],
  'diagnostics.ts': [
    /^loaded Tandem Pocket, \d+ bytes$/m,
    /^Tandem Pocket: 10 tokens behind 18, then stop$/m,
    /^48 tokens in \d+ steps, of up to 2 sequences/m,
  ],
  'embeddings.ts': [/^1\.000 .*Sort 5 3 9\.\n.* 1\.000 /],
  'rerank.ts': [/^ +-0\.\d{3} {2}17\n/],
  'router-statistics.ts': [/^layer {2}max\/mean/, /^ {4}5 +1\.\d\d +\d+ {2}[▁-█]{16}$/m],
  'stream.ts': [/fox/],
}

const files = readdirSync(folder).filter((name) => name.endsWith('.ts'))

test('every example is tested, and is short', () => {
  expect(files.sort()).toEqual(Object.keys(PROMISES).sort())
  for (const name of files) expect(readFileSync(folder + name, 'utf8').split('\n').length, name).toBeLessThanOrEqual(40)
})

test.each(files)('%s', async (name) => {
  const child = spawn(process.execPath, [folder + name], { stdio: ['ignore', 'pipe', 'pipe'] })
  const output = { stdout: '', stderr: '' }
  child.stdout.on('data', (chunk: Buffer) => (output.stdout += chunk.toString()))
  child.stderr.on('data', (chunk: Buffer) => (output.stderr += chunk.toString()))
  const code = await new Promise((resolve) => void child.on('close', resolve))
  expect(code, output.stderr).toBe(0)
  for (const promise of PROMISES[name]!) expect(output.stdout.trimEnd()).toMatch(promise)
})
