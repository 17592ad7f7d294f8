import { afterEach, beforeEach, expect, test } from 'vitest'
import { rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { openModelFile } from '../../../src/gguf/open.ts'
import { parseShardName, shardName } from '../../../src/gguf/shards.ts'
import { describeModel } from '../../../src/model/describe.ts'
import { encodeGguf, splitSpec, temporaryDirectory, tinyGlm4moe } from '../../fixtures/build-gguf.ts'
import type { GgufSpec } from '../../fixtures/build-gguf.ts'

let directory: Awaited<ReturnType<typeof temporaryDirectory>>
beforeEach(async () => {
  directory = await temporaryDirectory()
})
afterEach(() => directory[Symbol.asyncDispose]())

async function writeShards(shards: readonly GgufSpec[], prefix = 'tiny'): Promise<string[]> {
  return Promise.all(shards.map((shard, index) => directory.write(shardName(prefix, index + 1, shards.length), encodeGguf(shard))))
}

test('shard names are parsed and made', () => {
  expect(parseShardName('/a/b-00002-of-00010.gguf')).toEqual({ prefix: 'b', number: 2, count: 10 })
  expect(parseShardName('/a/b.gguf')).toBeUndefined()
  expect(shardName('b', 2, 10)).toBe('b-00002-of-00010.gguf')
})

test('the first shard, any shard and the directory open the whole model', async () => {
  const spec = tinyGlm4moe()
  const paths = await writeShards(splitSpec(spec, 3))
  for (const path of [...paths, directory.path]) {
    const file = await openModelFile(path)
    expect(file.paths).toEqual(paths)
    expect([...file.tensors.keys()]).toEqual([...spec.tensors.keys()])
    expect(new Set([...file.tensors.values()].map((tensor) => tensor.shard))).toEqual(new Set([0, 1, 2]))
    expect(file.metadata.get('general.name')).toBe('tiny')
    expect(describeModel(file).layers).toHaveLength(2)
  }
})

test('a missing shard is named', async () => {
  const paths = await writeShards(splitSpec(tinyGlm4moe(), 3))
  await rm(paths[1]!)
  const expected = { code: 'ERR_GGUF_SHARD', message: expect.stringContaining('tiny-00002-of-00003.gguf') }
  await expect(openModelFile(paths[0]!)).rejects.toMatchObject(expected)
  await expect(openModelFile(paths[2]!)).rejects.toMatchObject(expected)
})

test('a shard of another model, or one under a wrong name, is refused', async () => {
  const paths = await writeShards(splitSpec(tinyGlm4moe(), 3))
  await rename(paths[2]!, join(directory.path, 'kept'))
  await rename(paths[1]!, paths[2]!)
  await rename(join(directory.path, 'kept'), paths[1]!)
  await expect(openModelFile(paths[0]!)).rejects.toMatchObject({ code: 'ERR_GGUF_SHARD', message: expect.stringContaining('split.no') })
})

test('a shard whose name does not say so is refused', async () => {
  const [first] = splitSpec(tinyGlm4moe(), 2)
  const path = await directory.write('renamed.gguf', encodeGguf(first!))
  await expect(openModelFile(path)).rejects.toMatchObject({ code: 'ERR_GGUF_SHARD', message: expect.stringContaining('-of-00002') })
  const whole = await directory.write('whole-00001-of-00002.gguf', encodeGguf(tinyGlm4moe()))
  await expect(openModelFile(whole)).rejects.toMatchObject({ code: 'ERR_GGUF_SHARD' })
})

test('the tensors of all shards must add up', async () => {
  const shards = splitSpec(tinyGlm4moe(), 2)
  shards[1]!.tensors.delete('output.weight')
  const paths = await writeShards(shards)
  await expect(openModelFile(paths[0]!)).rejects.toMatchObject({
    code: 'ERR_GGUF_SHARD',
    message: expect.stringContaining('split.tensors.count'),
  })
})

test('a tensor in two shards is refused', async () => {
  const shards = splitSpec(tinyGlm4moe(), 2)
  const [name, tensor] = [...shards[0]!.tensors][0]!
  shards[1]!.tensors.delete('output.weight')
  shards[1]!.tensors.set(name, tensor)
  const paths = await writeShards(shards)
  await expect(openModelFile(paths[0]!)).rejects.toMatchObject({ code: 'ERR_GGUF_INVALID', message: expect.stringContaining(name) })
})
