import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { existsSync } from 'node:fs'
import { mkdir, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { FORMATS } from '../../../src/abi/formats.ts'
import { openModelFile } from '../../../src/gguf/open.ts'
import { writeModelFile } from '../../../src/gguf/write.ts'
import type { TypedValue } from '../../../src/gguf/write.ts'
import { vocabularyMetadata } from '../../../src/synth/vocabulary.ts'
import { encodeGguf, GGUF, raw, temporaryDirectory, text, tinyGlm4moe, u32 } from '../../fixtures/build-gguf.ts'

let directory: Awaited<ReturnType<typeof temporaryDirectory>>
beforeAll(async () => {
  directory = await temporaryDirectory()
})
afterAll(() => directory[Symbol.asyncDispose]())

describe.each([2, 3] as const)('version %i', (version) => {
  test('a model is read with its metadata and tensors', async () => {
    const spec = { ...tinyGlm4moe(), version }
    const bytes = encodeGguf(spec)
    const path = await directory.write(`v${version}.gguf`, bytes)
    const file = await openModelFile(path)
    expect(file).toMatchObject({ paths: [path], version, bytes: bytes.length })
    expect(file.metadata.get('glm4moe.block_count')).toBe(2)
    expect([...file.tensors.keys()]).toEqual([...spec.tensors.keys()])
    for (const tensor of file.tensors.values()) {
      const { data, shape } = spec.tensors.get(tensor.name)!
      expect(tensor).toMatchObject({ format: 'F32', shape, bytes: data.length, shard: 0 })
      expect(bytes.subarray(tensor.offset, tensor.offset + tensor.bytes).equals(data)).toBe(true)
    }
  })
})

test('every value type keeps its value', async () => {
  const metadata = new Map<string, TypedValue>([
    ['u8', { type: 'u8', value: 255 }],
    ['i8', { type: 'i8', value: -128 }],
    ['u16', { type: 'u16', value: 65_535 }],
    ['i16', { type: 'i16', value: -32_768 }],
    ['u32', { type: 'u32', value: 4_294_967_295 }],
    ['i32', { type: 'i32', value: -2_147_483_648 }],
    ['f32', { type: 'f32', value: 0.5 }],
    ['f64', { type: 'f64', value: 0.1 }],
    ['bool', { type: 'bool', value: true }],
    ['u64', { type: 'u64', value: 9_007_199_254_740_991n }],
    ['u64 beyond numbers', { type: 'u64', value: 9_007_199_254_740_992n }],
    ['i64', { type: 'i64', value: -5n }],
    ['i64 beyond numbers', { type: 'i64', value: -9_223_372_036_854_775_808n }],
    ['text', { type: 'string', value: 'größer 🙂' }],
    ['empty', { type: 'array', of: 'string', value: [] }],
    ['texts', { type: 'array', of: 'string', value: ['a', '', 'ü'] }],
    ['bools', { type: 'array', of: 'bool', value: [true, false] }],
    ['numbers', { type: 'array', of: 'f32', value: Array.from({ length: 10_000 }, (_, index) => index / 4) }],
    ['__proto__', { type: 'u8', value: 1 }],
  ])
  const path = await directory.write('types.gguf', encodeGguf({ version: 3, metadata, tensors: new Map() }))
  const file = await openModelFile(path)
  const expected = [...metadata].map(([key, { value }]) => [
    key,
    typeof value === 'bigint' && Number.isSafeInteger(Number(value)) ? Number(value) : value,
  ])
  expect([...file.metadata]).toEqual(expected)
})

test('arrays of arrays are read to a depth of four', async () => {
  const nested = (depth: number): Buffer => (depth === 0 ? raw(4, 1n, 7) : raw(9, 1n, nested(depth - 1)))
  const file = (depth: number): Buffer => raw(GGUF, 3, 0n, 1n, 'nest', 9, nested(depth))
  const opened = await openModelFile(await directory.write('nest.gguf', file(3)))
  expect(opened.metadata.get('nest')).toEqual([[[[7]]]])
  await expect(openModelFile(await directory.write('deep.gguf', file(4)))).rejects.toMatchObject({ code: 'ERR_GGUF_LIMIT' })
  await expect(openModelFile(await directory.write('deeper.gguf', file(5000)))).rejects.toMatchObject({ code: 'ERR_GGUF_LIMIT' })
})

test('an alignment other than the default is kept', async () => {
  const spec = tinyGlm4moe()
  spec.metadata.set('general.alignment', u32(4096))
  const file = await openModelFile(await directory.write('aligned.gguf', encodeGguf(spec)))
  expect([...file.tensors.values()].every((tensor) => tensor.offset % 4096 === 0)).toBe(true)
})

test('tensors of every format have the right size', async () => {
  const path = join(directory.path, 'formats.gguf')
  const tensors = Object.values(FORMATS).map(({ name, blockElements, blockBytes }) => {
    const bytes = (512 / blockElements) * blockBytes * 3 * 2
    return { name, format: name as keyof typeof FORMATS, shape: [512, 3, 2], data: () => [new Uint8Array(bytes)] }
  })
  await writeModelFile(path, { metadata: new Map([['general.name', text('all')]]), tensors })
  const file = await openModelFile(path)
  for (const tensor of file.tensors.values()) {
    const { blockElements, blockBytes } = FORMATS[tensor.format]
    expect(tensor.bytes, tensor.name).toBe((3072 / blockElements) * blockBytes)
  }
})

test('a vocabulary of 151,552 tokens opens in less than a second, and the event loop turns meanwhile', async () => {
  const path = await directory.write(
    'vocabulary.gguf',
    encodeGguf({ version: 3, metadata: new Map(vocabularyMetadata(151_552)), tensors: new Map() }),
  )
  let turns = 0
  const timer = setInterval(() => (turns += 1), 1)
  // The best of three: other tests run at the same time.
  let milliseconds = Infinity
  for (let attempt = 0; attempt < 3; attempt += 1) {
    const started = performance.now()
    const file = await openModelFile(path)
    milliseconds = Math.min(milliseconds, performance.now() - started)
    expect(file.metadata.get('tokenizer.ggml.tokens')).toHaveLength(151_552)
  }
  clearInterval(timer)
  expect(milliseconds).toBeLessThan(1000)
  expect(turns).toBeGreaterThan(2)
})

test('a directory with one model in it stands for the model', async () => {
  const inner = join(directory.path, 'one')
  await mkdir(inner)
  await directory.write('one/readme.md', Buffer.from('not a model'))
  await expect(openModelFile(inner)).rejects.toMatchObject({ code: 'ERR_FILE_ACCESS', message: expect.stringContaining('no .gguf') })
  await directory.write('one/model.gguf', encodeGguf(tinyGlm4moe()))
  expect((await openModelFile(inner)).paths).toEqual([join(inner, 'model.gguf')])
  await directory.write('one/other.gguf', encodeGguf(tinyGlm4moe()))
  await expect(openModelFile(inner)).rejects.toMatchObject({
    code: 'ERR_FILE_ACCESS',
    message: expect.stringContaining('model.gguf, other.gguf'),
  })
})

test('a path that is no readable file is an access error', async () => {
  await expect(openModelFile(join(directory.path, 'absent.gguf'))).rejects.toMatchObject({
    code: 'ERR_FILE_ACCESS',
    message: expect.stringMatching(/absent\.gguf: no such file/),
  })
})

test('where a model is not, the message says which are', async () => {
  const inner = join(directory.path, 'misspelt')
  await mkdir(inner)
  const message = async (): Promise<string> => openModelFile(join(inner, 'modle.gguf')).then(String, (error: Error) => error.message)
  expect(await message()).toMatch(/modle\.gguf: no such file or directory; check the path$/)
  await directory.write('misspelt/notes.txt', Buffer.from('not a model'))
  await directory.write('misspelt/model.gguf', Buffer.from('x'))
  expect(await message()).toMatch(/check the path: its directory has model\.gguf$/)
  for (let shard = 1; shard <= 4; shard++) await directory.write(`misspelt/shard-${shard}.gguf`, Buffer.from('x'))
  expect(await message()).toMatch(/its directory has model\.gguf, shard-1\.gguf, shard-2\.gguf, and 2 more$/)
})

test('an aborted signal stops the opening', async () => {
  const path = await directory.write('abort.gguf', encodeGguf(tinyGlm4moe()))
  await expect(openModelFile(path, { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'ERR_ABORTED' })
  const controller = new AbortController()
  const opening = openModelFile(path, { signal: controller.signal })
  controller.abort()
  await expect(opening).rejects.toMatchObject({ code: 'ERR_ABORTED' })
})

test.skipIf(!existsSync('/proc/self/fd'))('the file is closed again, also after an error', async () => {
  const path = await directory.write('closed.gguf', encodeGguf(tinyGlm4moe()))
  const broken = await directory.write('broken.gguf', encodeGguf(tinyGlm4moe()).subarray(0, 3000))
  const before = (await readdir('/proc/self/fd')).length
  for (let round = 0; round < 50; round += 1) {
    await openModelFile(path)
    await openModelFile(broken).catch(() => undefined)
  }
  expect((await readdir('/proc/self/fd')).length).toBeLessThan(before + 10)
})
