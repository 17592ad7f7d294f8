import { afterAll, beforeAll, expect, test } from 'vitest'
import { existsSync } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { openModelFile } from '../../../src/gguf/open.ts'
import { encodeHeader, writeModelFile } from '../../../src/gguf/write.ts'
import { encodeGguf, temporaryDirectory, text, tinyGlm4moe } from '../../fixtures/build-gguf.ts'

let directory: Awaited<ReturnType<typeof temporaryDirectory>>
beforeAll(async () => {
  directory = await temporaryDirectory()
})
afterAll(() => directory[Symbol.asyncDispose]())

test('streamed chunks of any size, synchronous or not, make the same file', async () => {
  const spec = tinyGlm4moe()
  const expected = encodeGguf(spec)
  for (const size of [7, 1000, 1_000_000]) {
    const path = join(directory.path, `chunks-${size}.gguf`)
    const progress: number[] = []
    const tensors = [...spec.tensors.values()].map((tensor, index) => ({
      ...tensor,
      data: index % 2 === 0 ? () => chunks(tensor.data, size) : () => asyncChunks(tensor.data, size),
    }))
    const result = await writeModelFile(path, { metadata: spec.metadata, tensors, onProgress: ({ done }) => progress.push(done) })
    expect(result).toEqual({ bytes: expected.length, tensors: spec.tensors.size })
    expect((await readFile(path)).equals(expected)).toBe(true)
    expect(progress.at(-1)).toBe(expected.length)
  }
})

test('a source with too few or too many bytes is an error and leaves nothing behind', async () => {
  for (const bytes of [12, 20]) {
    const path = join(directory.path, 'wrong.gguf')
    const tensor = { name: 'a', format: 'F32' as const, shape: [4], data: () => [new Uint8Array(bytes)] }
    await expect(writeModelFile(path, { metadata: new Map(), tensors: [tensor] })).rejects.toMatchObject({ code: 'ERR_ARGUMENT' })
    expect((await readdir(directory.path)).filter((name) => name.startsWith('wrong'))).toEqual([])
  }
})

test('aborting leaves nothing behind', async () => {
  const controller = new AbortController()
  const path = join(directory.path, 'aborted.gguf')
  const data = function* (): Generator<Uint8Array> {
    yield new Uint8Array(8)
    controller.abort()
    yield new Uint8Array(8)
  }
  const tensors = [{ name: 'a', format: 'F32' as const, shape: [4], data }]
  await expect(writeModelFile(path, { metadata: new Map(), tensors, signal: controller.signal })).rejects.toMatchObject({
    code: 'ERR_ABORTED',
  })
  expect(existsSync(path) || existsSync(`${path}.partial`)).toBe(false)
})

test('a path that cannot be written is an access error', async () => {
  await expect(writeModelFile(join(directory.path, 'no', 'such.gguf'), { metadata: new Map(), tensors: [] })).rejects.toMatchObject({
    code: 'ERR_FILE_ACCESS',
  })
})

test('long text survives the growth of the header buffer', async () => {
  const value = 'x'.repeat(300_000)
  const header = encodeHeader(
    new Map([
      ['a', text(value)],
      ['b', text('after')],
    ]),
    [],
  )
  const file = await openModelFile(await directory.write('long.gguf', header))
  expect(file.metadata.get('a')).toBe(value)
  expect(file.metadata.get('b')).toBe('after')
})

function* chunks(data: Uint8Array, size: number): Generator<Uint8Array> {
  for (let at = 0; at < data.length; at += size) yield data.subarray(at, at + size)
}

async function* asyncChunks(data: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  yield* chunks(data, size)
}
