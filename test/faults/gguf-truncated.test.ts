import { expect, test } from 'vitest'
import { truncate } from 'node:fs/promises'
import { openModelFile } from '../../src/gguf/open.ts'
import { encodeGguf, splitSpec, temporaryDirectory, tinyGlm4moe } from '../fixtures/build-gguf.ts'

test('a file cut at any 1/64 of its length is truncated', async () => {
  await using directory = await temporaryDirectory()
  const bytes = encodeGguf(tinyGlm4moe())
  for (let part = 0; part < 64; part += 1) {
    const path = await directory.write('cut.gguf', bytes.subarray(0, Math.floor((bytes.length * part) / 64)))
    await expect(openModelFile(path), `${part}/64`).rejects.toMatchObject({
      code: 'ERR_GGUF_TRUNCATED',
      message: expect.stringContaining(path),
    })
  }
})

test('a file cut at any byte of its header, and anywhere in its data, is truncated', async () => {
  await using directory = await temporaryDirectory()
  const bytes = encodeGguf(tinyGlm4moe())
  const path = await directory.write('cut.gguf', bytes)
  const { tensors } = await openModelFile(path)
  const dataStart = Math.min(...[...tensors.values()].map((tensor) => tensor.offset))
  const dataEnd = Math.max(...[...tensors.values()].map((tensor) => tensor.offset + tensor.bytes))
  for (let length = dataEnd - 1; length >= 0; length -= length > dataStart + 64 ? 1021 : 3) {
    await truncate(path, length)
    await expect(openModelFile(path), `${length} bytes`).rejects.toMatchObject({ code: 'ERR_GGUF_TRUNCATED' })
  }
}, 60_000)

test('a shard that is cut is truncated, and named', async () => {
  await using directory = await temporaryDirectory()
  const [first, second] = splitSpec(tinyGlm4moe(), 2).map((spec) => encodeGguf(spec))
  const path = await directory.write('m-00001-of-00002.gguf', first!)
  const cut = await directory.write('m-00002-of-00002.gguf', second!.subarray(0, second!.length >> 1))
  await expect(openModelFile(path)).rejects.toMatchObject({ code: 'ERR_GGUF_TRUNCATED', message: expect.stringContaining(cut) })
})
