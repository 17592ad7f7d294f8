import { expect, test } from 'vitest'
import { vocabularyMetadata } from '../../../src/synth/vocabulary.ts'

test.each([300, 1024, 32_768, 151_552])('a vocabulary of %i tokens is consistent', (size) => {
  const metadata = vocabularyMetadata(size)
  const list = (key: string) => (metadata.get(`tokenizer.ggml.${key}`) as { value: readonly unknown[] }).value
  const tokens = list('tokens') as readonly string[]
  const types = list('token_type') as readonly number[]
  const merges = list('merges') as readonly string[]
  expect(tokens).toHaveLength(size)
  expect(types).toHaveLength(size)
  expect(new Set(tokens).size).toBe(size)
  expect(new Set(merges).size).toBe(merges.length)

  // Every merge joins two tokens that exist into one that exists, with parts that rank before the whole.
  const ids = new Map(tokens.map((token, id) => [token, id]))
  const broken = merges.filter((merge) => {
    const [left = '', right = '', ...others] = merge.split(' ')
    const whole = ids.get(left + right) ?? -1
    return others.length > 0 || !(ids.get(left)! < whole) || !(ids.get(right)! < whole)
  })
  expect(broken).toEqual([])
  expect(merges.length).toBe(types.filter((type) => type === 1).length - 256)

  for (const key of ['eos', 'bos', 'unknown', 'padding', 'eot']) {
    const id = metadata.get(`tokenizer.ggml.${key}_token_id`)!.value as number
    expect(types[id], key).toBe(3)
  }
  expect(tokens[metadata.get('tokenizer.ggml.eos_token_id')!.value as number]).toBe('<|endoftext|>')
  expect(types.filter((type) => type === 5)).toHaveLength(Math.floor(size / 1024))
})
