/** The output: whole lines or nothing, wherever it was cut. */
import { existsSync } from 'node:fs'
import { mkdtemp, open, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gunzipSync, gzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { OutputFile } from '../../../src/batch/output-file.ts'
import { collect } from '../../fixtures/batch-files.ts'

let directory: string
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'tandem-output-'))
})
afterAll(() => rm(directory, { recursive: true }))

/** The lines that are there, and the lines that are written behind them. */
async function goOn(path: string, lines: readonly string[]): Promise<(string | undefined)[]> {
  const output = await OutputFile.open(path)
  const found = (await collect(output.existing())).map(({ text }) => text)
  for (const line of lines) await output.append(line)
  await output.close()
  return found
}

const LINES = ['{"id":"a"}', '{"id":"é𝄞"}', `{"id":"${'x'.repeat(50)}"}`]

describe.each(['out.jsonl', 'out.jsonl.gz'])('%s', (name) => {
  const textOf = async (path: string): Promise<string> => {
    const bytes = await readFile(path)
    return (name.endsWith('.gz') && bytes.length > 0 ? gunzipSync(bytes) : bytes).toString()
  }

  test('cut at any byte, it is gone on with behind its last whole line', async () => {
    const path = join(directory, `cut-${name}`)
    // one member each
    for (const line of LINES) await goOn(path, [line])
    expect(await textOf(path)).toBe(LINES.map((line) => `${line}\n`).join(''))
    const whole = await readFile(path)
    let before = 0
    for (let length = 0; length <= whole.length; length++) {
      await writeFile(path, whole)
      await truncate(path, length)
      const found = await goOn(path, ['{"id":"new"}'])
      expect(found).toEqual(LINES.slice(0, found.length))
      expect(found.length).toBeGreaterThanOrEqual(before)
      before = found.length
      expect(await textOf(path)).toBe([...found, '{"id":"new"}'].map((line) => `${line}\n`).join(''))
    }
    expect(before).toBe(LINES.length)
  })

  test('zeros at its end, as a power failure leaves them, are cut off', async () => {
    const path = join(directory, `zeros-${name}`)
    await goOn(path, LINES)
    await writeFile(path, Buffer.concat([await readFile(path), Buffer.alloc(5000)]))
    expect(await goOn(path, [])).toEqual(LINES)
    expect(await goOn(path, [])).toEqual(LINES)
  })

  test('many lines at once arrive in order', async () => {
    const path = join(directory, `many-${name}`)
    const lines = Array.from({ length: 20_000 }, (_, index) => JSON.stringify({ id: index, text: 'y'.repeat(index % 90) }))
    const output = await OutputFile.open(path)
    for await (const _ of output.existing());
    const all = Promise.all(lines.map((line) => output.append(line)))
    await all
    await output.close()
    expect(await textOf(path)).toBe(`${lines.join('\n')}\n`)
  })
})

test('a gzip file of another program is refused and left alone, also one with a damaged middle', async () => {
  const path = join(directory, 'other.jsonl.gz')
  await writeFile(path, gzipSync(`${LINES.join('\n')}\n`))
  const before = await readFile(path)
  await expect(goOn(path, [])).rejects.toMatchObject({ code: 'ERR_BATCH_OUTPUT' })
  expect(await readFile(path)).toEqual(before)
  await rm(path)
  for (const line of LINES) await goOn(path, [line])
  const bytes = await readFile(path)
  bytes[25]! ^= 255
  await writeFile(path, bytes)
  await expect(goOn(path, [])).rejects.toMatchObject({ code: 'ERR_BATCH_OUTPUT' })
  expect(await readFile(path)).toEqual(bytes)
})

test.skipIf(!existsSync('/dev/full'))('a full disk is told at once, and at the end', async () => {
  const output = await OutputFile.open('/dev/full')
  for await (const _ of output.existing());
  await output.append('x')
  await expect(output.close()).rejects.toMatchObject({ code: 'ERR_FILE_ACCESS' })
  await expect(output.append('y')).rejects.toMatchObject({ code: 'ERR_FILE_ACCESS' })
})

test('a file that cannot be written is told', async () => {
  await expect(OutputFile.open(directory)).rejects.toMatchObject({ code: 'ERR_FILE_ACCESS' })
  await (await open(join(directory, 'file'), 'w')).close()
  await expect(OutputFile.open(join(directory, 'file', 'below'))).rejects.toMatchObject({ code: 'ERR_FILE_ACCESS' })
})
