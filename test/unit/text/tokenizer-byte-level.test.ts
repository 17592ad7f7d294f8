import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { toByteLevel } from '../../../src/text/byte-level.ts'
import { createTokenizer } from '../../../src/text/tokenizer.ts'
import { byteLevelMetadata } from './vocabularies.ts'

const MERGES = ['h e', 'l l', 'he ll', 'hell o', 'Ġ w', 'Ġw o', 'o o', 'l o', 'Ã ¼', 'ð Ł', 'ðŁ ¦', 'Ċ Ċ', 'Ġ Ġ']
const plain = { addSpecial: false } as const

/** Merges the best-ranked pair, the leftmost of equals, until no pair is left: slow and obvious. */
function mergeNaively(word: string, merges: readonly string[]): string[] {
  const parts = [...word]
  for (;;) {
    const ranks = parts.slice(1).map((right, i) => merges.indexOf(`${parts[i]} ${right}`))
    const best = Math.min(...ranks.filter((rank) => rank >= 0))
    if (best === Infinity) return parts
    const at = ranks.indexOf(best)
    parts.splice(at, 2, `${parts[at]}${parts[at + 1]}`)
  }
}

describe('byte-level tokenizer', () => {
  const tokenizer = createTokenizer(byteLevelMetadata(MERGES))
  const id = (token: string): number => 256 + MERGES.map((merge) => merge.replace(' ', '')).indexOf(token)
  const bos = 256 + MERGES.length

  it('merges by rank inside words', () => {
    expect(tokenizer.encode('hello wo', plain)).toEqual([id('hello'), id('Ġwo')])
    expect(tokenizer.encode('ü', plain)).toEqual([id('Ã¼')])
    expect(tokenizer.encode('', plain)).toEqual([])
  })

  it('decodes what it encodes, for any Unicode text', () => {
    const text = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.string({ unit: 'grapheme' }),
      fc.string({ unit: fc.constantFrom(...'helo wü\n🦙\uFEFF') }),
    )
    fc.assert(fc.property(text, (value) => tokenizer.decode(tokenizer.encode(value)) === value))
  })

  it('reads lone surrogates as U+FFFD', () => {
    expect(tokenizer.decode(tokenizer.encode('a\uD800b\uDC00'))).toBe('a\uFFFDb\uFFFD')
  })

  it('merges as a naive implementation does', () => {
    const vocabulary = ['a b', 'b a', 'a a', 'ab a', 'aa b', 'ab ab', 'b b', 'bb a', 'aba ba', 'ba ba', 'aab bba']
    const random = createTokenizer(byteLevelMetadata(vocabulary))
    const word = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), maxLength: 40 })
    fc.assert(
      fc.property(word, (value) => {
        const expected = mergeNaively(toByteLevel(value), vocabulary)
        expect(random.encode(value, plain).map((each) => random.tokenText(each))).toEqual(expected)
      }),
      { numRuns: 300 },
    )
  })

  it('adds bos and eos only where the file asks for it', () => {
    const both = createTokenizer(byteLevelMetadata([], { add_bos_token: true, add_eos_token: true }))
    expect(both.encode('a')).toEqual([256, 0x61, 257])
    expect(both.encode('')).toEqual([256, 257])
    expect(both.encode('', plain)).toEqual([])
    expect(tokenizer.addBos).toBe(false)
    expect(tokenizer.encode('')).toEqual([])
    expect(createTokenizer(byteLevelMetadata([], { pre: 'llama-bpe' })).addBos).toBe(true)
    expect(createTokenizer(byteLevelMetadata([], { pre: 'llama-bpe', add_bos_token: false })).addBos).toBe(false)
  })

  it('recognises control tokens only when told to, added tokens always', () => {
    const text = 'hello<think><|bos|>'
    expect(tokenizer.encode(text, { ...plain, parseSpecial: true })).toEqual([id('hello'), bos + 2, bos])
    expect(tokenizer.encode(text, plain).slice(0, 2)).toEqual([id('hello'), bos + 2])
    expect(tokenizer.encode(text, plain)).not.toContain(bos)
    expect(tokenizer.decode(tokenizer.encode(text, plain))).toBe(text)
    expect(tokenizer.encode('<|hole|>', { ...plain, parseSpecial: true })).not.toContain(bos + 3)
  })

  it('finds the longest of added tokens that start at the same place', () => {
    const tokens = [...(byteLevelMetadata().get('tokenizer.ggml.tokens') as string[]), '<a>', '<a><b>', '<b><c>']
    const types = [...(byteLevelMetadata().get('tokenizer.ggml.token_type') as number[]), 4, 4, 4]
    const added = createTokenizer(byteLevelMetadata([], { tokens, token_type: types }))
    expect(added.encode('<a><b><c>', plain).slice(0, 1)).toEqual([261])
    expect(added.encode('<a>-<b><c>', plain)).toEqual([260, added.encode('-', plain)[0], 262])
  })

  it('leaves control tokens out of decoded text unless asked', () => {
    const ids = [bos, ...tokenizer.encode('hello', plain), bos + 3, bos + 1]
    expect(tokenizer.decode(ids)).toBe('hello')
    expect(tokenizer.decode(ids, { skipSpecial: false })).toBe('<|bos|>hello<|hole|><|end|>')
    expect(tokenizer.isControl(bos)).toBe(true)
    expect(tokenizer.isControl(bos + 2)).toBe(false)
  })

  it('gives the bytes of a token', () => {
    expect([...tokenizer.tokenBytes(id('ðŁ¦'))]).toEqual([0xf0, 0x9f, 0xa6])
    expect(tokenizer.tokenText(id('ðŁ¦'))).toBe('\uFFFD')
    expect(tokenizer.tokenText(id('Ġwo'))).toBe(' wo')
    expect(tokenizer.tokenText(bos)).toBe('<|bos|>')
    for (const bad of [-1, 1.5, Number.NaN, tokenizer.vocabulary]) {
      expect(() => tokenizer.tokenBytes(bad)).toThrow(expect.objectContaining({ code: 'ERR_TOKEN_RANGE' }))
      expect(() => tokenizer.decode([bad])).toThrow(expect.objectContaining({ code: 'ERR_TOKEN_RANGE' }))
    }
  })

  it('takes a word that is a token whole where the family ignores merges', () => {
    // "abc" is a token, but the merges lead to "ab" + "c" only.
    const tokens = [...(byteLevelMetadata(['a b']).get('tokenizer.ggml.tokens') as string[]), 'abc']
    const types = [...(byteLevelMetadata(['a b']).get('tokenizer.ggml.token_type') as number[]), 1]
    const fields = { tokens, token_type: types }
    const count = (pre: string): number => createTokenizer(byteLevelMetadata(['a b'], { ...fields, pre })).encode('abc', plain).length
    expect(count('llama-bpe')).toBe(1)
    expect(count('qwen2')).toBe(2)
  })

  it('fails by name on a byte that has no token, or uses the unknown token', () => {
    const tokens = [...(byteLevelMetadata().get('tokenizer.ggml.tokens') as string[])]
    tokens[1] = '<|user|>'
    expect(() => createTokenizer(byteLevelMetadata([], { tokens })).encode('\u0001')).toThrow(
      expect.objectContaining({ code: 'ERR_TOKENIZER_INVALID', message: expect.stringContaining('0x01') }),
    )
    expect(createTokenizer(byteLevelMetadata([], { tokens, unknown_token_id: 259 })).encode('\u0001')).toEqual([259])
  })

  it('encodes a long text without a word boundary in linear time, more or less', () => {
    const time = (length: number): number => {
      const start = performance.now()
      createTokenizer(byteLevelMetadata(['a a', 'aa aa'])).encode('a'.repeat(length))
      return performance.now() - start
    }
    time(40_000)
    // Ten times the text: quadratic would be a hundred times the time.
    expect(time(400_000)).toBeLessThan(50 * Math.max(time(40_000), 20))
  })
})
