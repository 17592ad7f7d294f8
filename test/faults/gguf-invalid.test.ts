import { afterAll, beforeAll, expect, test } from 'vitest'
import { execFileSync } from 'node:child_process'
import { truncate } from 'node:fs/promises'
import { join } from 'node:path'
import type { ErrorCode } from '../../src/errors.ts'
import { openModelFile } from '../../src/gguf/open.ts'
import type { TypedValue } from '../../src/gguf/write.ts'
import { encodeGguf, GGUF, raw, temporaryDirectory, text, tinyGlm4moe, u32 } from '../fixtures/build-gguf.ts'

let directory: Awaited<ReturnType<typeof temporaryDirectory>>
beforeAll(async () => {
  directory = await temporaryDirectory()
})
afterAll(() => directory[Symbol.asyncDispose]())

/** A file with one tensor: `entry` is its table entry, `data` bytes follow at the default alignment. */
function oneTensor(entry: Buffer, data = 64): Buffer {
  const header = Buffer.concat([raw(GGUF, 3, 1n, 0n), entry])
  return Buffer.concat([header, Buffer.alloc((32 - (header.length % 32)) % 32), Buffer.alloc(data)])
}

/** Enough bytes after a header that a claimed length is not simply beyond the end. */
const FILLER = Buffer.alloc(4096)

const CASES: [what: string, bytes: () => Uint8Array, code: ErrorCode, message: RegExp][] = [
  ['text', () => Buffer.from('This is no model at all, but a text.'), 'ERR_GGUF_MAGIC', /does not begin with "GGUF"/],
  ['three other bytes', () => Buffer.from('abc'), 'ERR_GGUF_TRUNCATED', /ends inside/],
  ['version 1', () => raw(GGUF, 1, 0n, 0n), 'ERR_GGUF_VERSION', /version 1 /],
  ['version 4', () => raw(GGUF, 4, 0n, 0n), 'ERR_GGUF_VERSION', /version 4 /],
  ['a big-endian file', () => raw(GGUF, 0x03000000, 0n, 0n), 'ERR_GGUF_VERSION', /big-endian/],
  ['2^64 - 1 tensors', () => raw(GGUF, 3, 0xffff_ffff_ffff_ffffn, 0n, FILLER), 'ERR_GGUF_LIMIT', /18446744073709551615 tensors/],
  ['2^40 pairs', () => raw(GGUF, 3, 0n, 1n << 40n, FILLER), 'ERR_GGUF_LIMIT', /metadata pairs/],
  ['more tensors than fit', () => raw(GGUF, 3, 60_000n, 0n, FILLER), 'ERR_GGUF_TRUNCATED', /ends inside the header/],
  ['a key of 2^63 bytes', () => raw(GGUF, 3, 0n, 1n, 1n << 63n, FILLER), 'ERR_GGUF_LIMIT', /metadata key 0 claims/],
  ['an empty key', () => raw(GGUF, 3, 0n, 1n, '', 4, 1), 'ERR_GGUF_INVALID', /empty/],
  ['a text of 2^62 bytes', () => raw(GGUF, 3, 0n, 1n, 'key', 8, 1n << 62n, FILLER), 'ERR_GGUF_LIMIT', /"key" claims/],
  ['a text longer than the file', () => raw(GGUF, 3, 0n, 1n, 'key', 8, 5000n, FILLER), 'ERR_GGUF_TRUNCATED', /"key"/],
  ['an array of 2^60 items', () => raw(GGUF, 3, 0n, 1n, 'key', 9, 0, 1n << 60n, FILLER), 'ERR_GGUF_LIMIT', /elements/],
  ['an array longer than the file', () => raw(GGUF, 3, 0n, 1n, 'key', 9, 8, 1000n, FILLER), 'ERR_GGUF_TRUNCATED', /"key"/],
  ['an unknown value type', () => raw(GGUF, 3, 0n, 1n, 'key', 13, FILLER), 'ERR_GGUF_INVALID', /unknown type 13/],
  ['an unknown item type', () => raw(GGUF, 3, 0n, 1n, 'key', 9, 99, 1n, FILLER), 'ERR_GGUF_INVALID', /unknown type 99/],
  ['a bool of 2', () => raw(GGUF, 3, 0n, 1n, 'key', 7, Buffer.of(2), FILLER), 'ERR_GGUF_INVALID', /bool/],
  ['a key twice', () => raw(GGUF, 3, 0n, 2n, 'key', 4, 1, 'key', 4, 2), 'ERR_GGUF_INVALID', /"key" occurs twice/],
  ['no dimensions', () => oneTensor(raw('t', 0, 0, 0n, FILLER)), 'ERR_GGUF_LIMIT', /0 dimensions/],
  ['five dimensions', () => oneTensor(raw('t', 5, 1n, 1n, 1n, 1n, 1n, 0, 0n)), 'ERR_GGUF_LIMIT', /5 dimensions/],
  ['a dimension of 0', () => oneTensor(raw('t', 2, 8n, 0n, 0, 0n)), 'ERR_GGUF_INVALID', /dimension 1 of tensor "t" is 0/],
  ['a dimension of 2^64 - 1', () => oneTensor(raw('t', 1, 0xffff_ffff_ffff_ffffn, 0, 0n)), 'ERR_GGUF_LIMIT', /more elements/],
  ['an element count past 2^53', () => oneTensor(raw('t', 4, 65536n, 65536n, 65536n, 65536n, 0, 0n)), 'ERR_GGUF_LIMIT', /more elements/],
  ['a row of half a block', () => oneTensor(raw('t', 1, 16n, 2, 0n)), 'ERR_GGUF_INVALID', /16 elements, not a multiple of Q4_0's 32/],
  [
    'a known, unsupported format',
    () => oneTensor(raw('t', 1, 256n, 16, 0n)),
    'ERR_FORMAT_UNSUPPORTED',
    /tensor "t" has the format IQ2_XXS \(id 16\)/,
  ],
  ['an unknown format', () => oneTensor(raw('t', 1, 16n, 4321, 0n)), 'ERR_FORMAT_UNSUPPORTED', /unknown id 4321/],
  ['a misaligned tensor', () => oneTensor(raw('t', 1, 4n, 0, 8n)), 'ERR_GGUF_INVALID', /multiple of the alignment 32/],
  ['an offset outside the file', () => oneTensor(raw('t', 1, 4n, 0, 1n << 20n)), 'ERR_GGUF_TRUNCATED', /takes bytes/],
  ['an offset beyond any file', () => oneTensor(raw('t', 1, 4n, 0, 1n << 63n)), 'ERR_GGUF_LIMIT', /beyond any file/],
  ['a tensor without a name', () => oneTensor(raw('', 1, 4n, 0, 0n)), 'ERR_GGUF_INVALID', /no name/],
  ['a tensor name of 2^20 bytes', () => oneTensor(raw(1n << 20n, FILLER)), 'ERR_GGUF_LIMIT', /name of tensor 0/],
]

test.each(CASES)('%s', async (what, bytes, code, message) => {
  const path = await directory.write('case.gguf', bytes())
  const started = performance.now()
  const error = await openModelFile(path).then(
    () => undefined,
    (reason: unknown) => reason,
  )
  expect(error, what).toMatchObject({ name: 'TandemError', code, message: expect.stringMatching(message) })
  expect((error as Error).message).toContain(path)
  expect(performance.now() - started).toBeLessThan(1000)
})

test('overlapping tensors', async () => {
  const bytes = Buffer.concat([raw(GGUF, 3, 2n, 0n, 'a', 1, 16n, 0, 0n, 'b', 1, 4n, 0, 32n), Buffer.alloc(256)])
  const path = await directory.write('overlap.gguf', bytes)
  await expect(openModelFile(path)).rejects.toMatchObject({
    code: 'ERR_GGUF_INVALID',
    message: expect.stringMatching(/"a" and "b" overlap/),
  })
})

test('a tensor twice', async () => {
  const bytes = Buffer.concat([raw(GGUF, 3, 2n, 0n, 'a', 1, 4n, 0, 0n, 'a', 1, 4n, 0, 32n), Buffer.alloc(256)])
  const path = await directory.write('twice.gguf', bytes)
  await expect(openModelFile(path)).rejects.toMatchObject({ code: 'ERR_GGUF_INVALID', message: expect.stringMatching(/"a" occurs twice/) })
})

test.each([
  [u32(0), 'ERR_GGUF_INVALID'],
  [u32(48), 'ERR_GGUF_INVALID'],
  [u32(1 << 30), 'ERR_GGUF_LIMIT'],
  [text('32'), 'ERR_GGUF_INVALID'],
  [{ type: 'f32', value: Number.NaN }, 'ERR_GGUF_INVALID'],
] as [TypedValue, ErrorCode][])('the alignment %o', async (alignment, code) => {
  const spec = tinyGlm4moe()
  const bytes = encodeGguf(spec)
  // The header is encoded with the default alignment, and then claims another.
  const pair = Buffer.concat([raw('general.alignment'), alignmentBytes(alignment)])
  bytes.writeBigUInt64LE(BigInt(spec.metadata.size + 1), 16)
  const path = await directory.write('alignment.gguf', Buffer.concat([bytes.subarray(0, 24), pair, bytes.subarray(24)]))
  await expect(openModelFile(path)).rejects.toMatchObject({ code, message: expect.stringContaining('general.alignment') })
})

function alignmentBytes({ type, value }: TypedValue): Buffer {
  if (typeof value === 'string') return raw(8, value)
  return type === 'f32' ? raw(6, new Uint8Array(Float32Array.of(Number(value)).buffer)) : raw(4, Number(value))
}

test('a sparse file of a terabyte with absurd claims costs neither time nor memory', async () => {
  const path = await directory.write('sparse.gguf', raw(GGUF, 3, 65_536n, 65_536n))
  await truncate(path, 1e12)
  const before = process.memoryUsage().rss
  const started = performance.now()
  // All-zero pairs: the first key is empty.
  await expect(openModelFile(path)).rejects.toMatchObject({ code: 'ERR_GGUF_INVALID' })
  const array = await directory.write('sparse-array.gguf', raw(GGUF, 3, 0n, 1n, 'key', 9, 8, 8_000_000n))
  await truncate(array, 1e12)
  await openModelFile(array)
  expect(performance.now() - started).toBeLessThan(5000)
  expect(process.memoryUsage().rss - before).toBeLessThan(512 * 1024 * 1024)
})

test.skipIf(process.platform === 'win32')('a named pipe is refused, not waited for', async () => {
  const path = join(directory.path, 'pipe.gguf')
  execFileSync('mkfifo', [path])
  await expect(openModelFile(path)).rejects.toMatchObject({
    code: 'ERR_FILE_ACCESS',
    message: expect.stringContaining('not a regular file'),
  })
})
