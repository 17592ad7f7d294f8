import { describe, expect, it } from 'vitest'
import { createTokenizer } from '../../../src/text/tokenizer.ts'
import { byteLevelMetadata, sentencePieceMetadata, tokenizerMetadata } from './vocabularies.ts'
import type { Fields } from './vocabularies.ts'

const count = 260
const types = byteLevelMetadata().get('tokenizer.ggml.token_type') as number[]
const tokens = byteLevelMetadata().get('tokenizer.ggml.tokens') as string[]
const isInvalid = (text: string): unknown =>
  expect.objectContaining({ code: 'ERR_TOKENIZER_INVALID', message: expect.stringContaining(text) })

describe('a vocabulary that does not work', () => {
  it.each<[string, Fields, string]>([
    ['no tokens', { tokens: undefined }, 'no vocabulary'],
    ['an empty vocabulary', { tokens: [] }, 'no vocabulary'],
    ['tokens that are not strings', { tokens: [1, 2] }, 'tokens is not an array of strings'],
    ['a token twice', { tokens: [...tokens.slice(0, -1), 'a'] }, 'same text'],
    ['too few types', { token_type: types.slice(1) }, '259 token types for 260 tokens'],
    ['a type beyond the known', { token_type: [...types.slice(1), 7] }, 'unknown type 7'],
    ['a byte token that is none', { token_type: [6, ...types.slice(1)] }, 'typed as a byte'],
    ['no merges', { merges: undefined }, 'needs tokenizer.ggml.merges'],
    ['a merge of an unknown token', { merges: ['a bc'] }, 'merge 0'],
    ['a merge into an unknown token', { merges: ['a b'] }, 'merge 0'],
    ['a merge without a space', { merges: ['ab'] }, 'merge 0'],
    ['bos beyond the vocabulary', { bos_token_id: count }, `bos_token_id is ${count}`],
    ['eos that is not a number', { eos_token_id: '1' }, 'eos_token_id is not a number'],
    ['eot that is fractional', { eot_token_id: 1.5 }, 'eot_token_id is 1.5'],
    ['bos to be added but absent', { bos_token_id: undefined, add_bos_token: true }, 'no bos token'],
    ['a pre-tokenizer that is not a string', { pre: 3 }, 'pre is not a string'],
  ])('%s', (_, fields, message) => {
    expect(() => createTokenizer(byteLevelMetadata([], fields))).toThrow(isInvalid(message))
  })

  it.each<[string, Fields, string]>([
    ['no scores', { scores: undefined }, 'needs tokenizer.ggml.scores'],
    ['too few scores', { scores: [1] }, '1 scores for 260 tokens'],
    ['a NaN score', { scores: Array.from({ length: count }, () => Number.NaN) }, 'NaN'],
  ])('%s', (_, fields, message) => {
    expect(() => createTokenizer(sentencePieceMetadata({ a: 0 }, fields))).toThrow(isInvalid(message))
  })

  it('no vocabulary at all', () => {
    expect(() => createTokenizer(tokenizerMetadata({}))).toThrow(isInvalid('no vocabulary'))
  })

  it('an unsupported kind or pre-tokenizer is named, with the known ones', () => {
    for (const [fields, name, known] of [
      [{ model: 'bert' }, "'bert'", 'gpt2'],
      [{ pre: 'falcon' }, "'falcon'", 'glm4, chatglm-bpe, qwen2'],
      [{ pre: 'constructor' }, "'constructor'", 'glm4'],
    ] as const) {
      expect(() => createTokenizer(byteLevelMetadata([], fields))).toThrow(
        expect.objectContaining({ code: 'ERR_TOKENIZER_UNSUPPORTED', message: expect.stringMatching(`${name}.*${known}`) }),
      )
    }
  })

  it('what merely looks odd is accepted: -1 for no token, empty placeholders, missing types', () => {
    const none = createTokenizer(byteLevelMetadata([], { bos_token_id: 0xffffffff, eos_token_id: -1 }))
    expect([none.bos, none.eos]).toEqual([undefined, undefined])
    expect(createTokenizer(byteLevelMetadata([], { tokens: [...tokens.slice(0, -2), '', ''] })).encode('a')).toHaveLength(1)
    const untyped = createTokenizer(byteLevelMetadata([], { token_type: undefined }))
    expect(untyped.isControl(256)).toBe(true)
    expect(untyped.encode('a<|end|>', { parseSpecial: true })).toHaveLength(2)
  })
})

describe('tokens that end an answer', () => {
  const withNames = (names: readonly string[], type: number, fields: Fields = {}): ReadonlySet<number> => {
    const all = { tokens: [...tokens, ...names], token_type: [...types, ...names.map(() => type)], eos_token_id: undefined, ...fields }
    return createTokenizer(byteLevelMetadata([], all)).endOfGeneration
  }

  it('are those in the metadata and well-known control tokens', () => {
    expect([...withNames([], 3, { eos_token_id: 10, eot_token_id: 11, eom_token_id: 12 })].sort()).toEqual([10, 11, 12, 257])
    expect([...withNames(['<|endoftext|>', '<|user|>', '<|observation|>', '<|assistant|>'], 3)].sort()).toEqual([257, 260, 261, 262])
  })

  it('are not ordinary tokens that look like one', () => {
    expect([...withNames(['</s>'], 1)]).toEqual([257])
  })

  it('do not include <|end|> where it ends only a message', () => {
    expect([...withNames(['<|return|>', '<|call|>'], 3)].sort()).toEqual([260, 261])
  })
})
