import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createTokenizer } from '../../../src/text/tokenizer.ts'
import { sentencePieceMetadata } from './vocabularies.ts'

const PIECES = { '▁': -9, h: -10, e: -11, l: -12, o: -13, he: -2, ll: -3, hell: -5, hello: -6, '▁hello': -7, '▁h': -1, '▁▁': -4, lo: -8 }
const plain = { addSpecial: false } as const

/** Merges the neighbours whose token has the highest score, the leftmost of equals, until none is a token: slow and obvious. */
function mergeNaively(text: string, scores: Readonly<Record<string, number>>): string[] {
  const parts = [...text]
  for (;;) {
    const found = parts.slice(1).map((right, i) => scores[`${parts[i]}${right}`] ?? -Infinity)
    const best = Math.max(...found)
    if (best === -Infinity) return parts
    const at = found.indexOf(best)
    parts.splice(at, 2, `${parts[at]}${parts[at + 1]}`)
  }
}

describe('SentencePiece tokenizer', () => {
  const tokenizer = createTokenizer(sentencePieceMetadata(PIECES))
  const id = (piece: string): number => 259 + Object.keys(PIECES).indexOf(piece)

  it('merges the highest score first, not the longest piece', () => {
    // "▁h" (-1) goes before "he" (-2), so "▁hello" is out of reach.
    expect(tokenizer.encode('hello', plain)).toEqual([id('▁h'), id('e'), id('ll'), id('o')])
    expect(createTokenizer(sentencePieceMetadata({ ...PIECES, '▁h': -99 })).encode('hello', plain)).toEqual([id('▁hello')])
  })

  it('puts bos and a space in front by default', () => {
    expect(tokenizer.encode('')).toEqual([1])
    expect(tokenizer.encode('lo')).toEqual([1, id('▁'), id('lo')])
    const bare = createTokenizer(sentencePieceMetadata(PIECES, { add_space_prefix: false, add_bos_token: false }))
    expect(bare.encode('lo')).toEqual([id('lo')])
  })

  it('falls back to bytes, or to the unknown token where there are no byte tokens', () => {
    expect(tokenizer.encode('ü', plain)).toEqual([id('▁'), 3 + 0xc3, 3 + 0xbc])
    const tokens = ['<unk>', '<s>', '</s>', '▁', 'a']
    const noBytes = { tokens, token_type: [2, 3, 3, 1, 1], scores: [0, 0, 0, -1, -2] }
    expect(createTokenizer(sentencePieceMetadata({}, noBytes)).encode('a🦙', plain)).toEqual([3, 4, 0])
    const noUnknown = createTokenizer(sentencePieceMetadata({}, { ...noBytes, token_type: [1, 3, 3, 1, 1] }))
    expect(() => noUnknown.encode('ü')).toThrow(expect.objectContaining({ code: 'ERR_TOKENIZER_INVALID' }))
  })

  it('decodes what it encodes, for any Unicode text', () => {
    const text = fc.oneof(fc.string({ unit: 'binary' }), fc.string({ unit: fc.constantFrom(...'helo \n🦙') }))
    // U+2581 is the one character that cannot come back: it stands for a space.
    fc.assert(fc.property(text, (value) => tokenizer.decode(tokenizer.encode(value)) === value.replaceAll('▁', ' ')))
  })

  it('merges as a naive implementation does', () => {
    const text = fc.string({ unit: fc.constantFrom(...'helo '), maxLength: 40 })
    fc.assert(
      fc.property(text, (value) => {
        const expected = mergeNaively(`▁${value.replaceAll(' ', '▁')}`, PIECES)
        const ids = tokenizer.encode(value, plain)
        expect(value === '' ? [] : expected.map((piece) => id(piece))).toEqual(ids)
      }),
      { numRuns: 300 },
    )
  })

  it('does not make control or byte tokens out of text', () => {
    const forged = createTokenizer(sentencePieceMetadata({ '<': -1, s: -2, '>': -3, '<s': -4, '<0x0': -5, 'A>': -6 }))
    expect(forged.encode('<s>', plain)).not.toContain(1)
    expect(forged.encode('<0x0A>', plain)).not.toContain(3 + 10)
    expect(forged.encode('<s>', { ...plain, parseSpecial: true })).toEqual([1])
  })

  it('puts the space behind control tokens too, and takes only the first away', () => {
    const ids = tokenizer.encode('hello</s>hello', { ...plain, parseSpecial: true })
    expect(ids.filter((each) => each === id('▁h'))).toHaveLength(2)
    expect(tokenizer.decode(ids, { skipSpecial: false })).toBe('hello</s> hello')
    expect(tokenizer.decode(ids, { continuation: true })).toBe(' hello hello')
  })

  it('encodes a megabyte in a few seconds', () => {
    const start = performance.now()
    expect(tokenizer.encode('hello '.repeat(170_000), plain).length).toBeGreaterThan(500_000)
    expect(performance.now() - start).toBeLessThan(20_000)
  })
})
