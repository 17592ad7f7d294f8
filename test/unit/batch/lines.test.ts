/** Lines of bytes that come in chunks of any size. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { readLines, splitLines } from '../../../src/batch/lines.ts'
import { collect } from '../../fixtures/batch-files.ts'

function chunks(bytes: Buffer, sizes: readonly number[]): Buffer[] {
  const pieces: Buffer[] = []
  for (let at = 0, turn = 0; at < bytes.length; turn++) {
    const size = sizes[turn % sizes.length]!
    pieces.push(bytes.subarray(at, at + size))
    at += size
  }
  return pieces
}

test('the lines are those of the text, however it is cut', async () => {
  const text = fc.array(fc.oneof(fc.constantFrom('\n', '\r\n', '', 'é', '𝄞', '{"a":1}'), fc.string({ unit: 'grapheme' })), {
    maxLength: 30,
  })
  const sizes = fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 5 })
  await fc.assert(
    fc.asyncProperty(text, sizes, async (parts, cut) => {
      const whole = parts.join('').replaceAll('\uFEFF', '')
      const bytes = Buffer.from(whole)
      const expected = bytes.toString().split('\n')
      const isWhole = expected.at(-1) === ''
      if (isWhole) expected.pop()
      const lines = await collect(splitLines(chunks(bytes, cut)))
      expect(lines.map((line) => line.text)).toEqual(expected)
      expect(lines.map(({ number }) => number)).toEqual(expected.map((_, index) => index + 1))
      expect(lines.at(-1)?.end ?? 0).toBe(bytes.length)
      for (const [index, line] of lines.entries()) expect(line.isWhole).toBe(isWhole || index < lines.length - 1)
    }),
    { seed: 7 },
  )
})

test('one that is too long, or not UTF-8, is told by number, and the others are read', async () => {
  const bytes = Buffer.concat([Buffer.from(`one\n${'x'.repeat(100)}\nthree\n`), Buffer.from([0xff, 0x0a]), Buffer.from('five')])
  for (const size of [1, 7, 1000]) {
    const lines = await collect(splitLines(chunks(bytes, [size]), 50))
    expect(lines.map(({ text, problem }) => text ?? problem)).toEqual(['one', 'longer than 50 bytes', 'three', 'not UTF-8', 'five'])
  }
})

test('files, gzipped by name, with a byte order mark', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'tandem-lines-'))
  const path = join(directory, 'a.jsonl')
  await writeFile(path, '\uFEFFone\ntwo')
  // two members, as programs that append write them
  await writeFile(`${path}.gz`, Buffer.concat([gzipSync('\uFEFFon'), gzipSync('e\ntwo')]))
  for (const name of [path, `${path}.gz`]) expect((await collect(readLines(name))).map(({ text }) => text)).toEqual(['one', 'two'])
  await writeFile(`${path}.gz`, gzipSync('a'.repeat(100)).subarray(0, 20))
  await expect(collect(readLines(`${path}.gz`))).rejects.toMatchObject({ code: 'ERR_FILE_ACCESS' })
  await expect(collect(readLines(join(directory, 'none')))).rejects.toMatchObject({ code: 'ERR_FILE_ACCESS' })
  await expect(collect(readLines(path, undefined, AbortSignal.abort()))).rejects.toMatchObject({ code: 'ERR_ABORTED' })
  await rm(directory, { recursive: true })
})
