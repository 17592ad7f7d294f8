import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createDetokenizer } from '../../../src/text/detokenizer.ts'
import { createTokenizer } from '../../../src/text/tokenizer.ts'
import type { Tokenizer } from '../../../src/text/tokenizer.ts'
import { byteLevelMetadata, sentencePieceMetadata } from './vocabularies.ts'

const byteLevel = createTokenizer(byteLevelMetadata(['ð Ł', 'Ã ¼', 'Ġ a']))
const pieces = createTokenizer(sentencePieceMetadata({ '▁': -1, '▁a': -2, a: -3, '▁▁': -4, ü: -5 }))

/** Bytes of all tokens that show, decoded at once: the reference for any way of streaming them. */
function decodeAtOnce(tokenizer: Tokenizer, ids: readonly number[], skipSpecial: boolean): string {
  const shown = ids.filter((id) => !skipSpecial || !tokenizer.isControl(id))
  const first = shown.find((id) => !tokenizer.isControl(id))
  let isDropped = !tokenizer.addSpacePrefix || first === undefined || tokenizer.tokenBytes(first)[0] !== 0x20
  const bytes = shown.flatMap((id) => {
    const each = [...tokenizer.tokenBytes(id)]
    if (isDropped || tokenizer.isControl(id)) return each
    isDropped = true
    return each.slice(1)
  })
  return new TextDecoder('utf-8', { ignoreBOM: true }).decode(Uint8Array.from(bytes))
}

describe('detokenizer', () => {
  it.each([
    ['byte-level', byteLevel],
    ['SentencePiece', pieces],
  ])('streams what decoding at once gives: %s', (_, tokenizer) => {
    const ids = fc.array(fc.nat(tokenizer.vocabulary - 1), { maxLength: 60 })
    fc.assert(
      fc.property(ids, fc.boolean(), (value, skipSpecial) => {
        const stream = createDetokenizer(tokenizer, { skipSpecial })
        const text = value.map((id) => stream.push(id)).join('') + stream.flush()
        expect(text).toBe(decodeAtOnce(tokenizer, value, skipSpecial))
        expect(text).toBe(tokenizer.decode(value, { skipSpecial }))
      }),
      { numRuns: 500 },
    )
  })

  it('never emits half a character', () => {
    const text = fc.string({ unit: 'binary' }).filter((value) => !value.includes('\uFFFD'))
    fc.assert(
      fc.property(text, (value) => {
        const stream = createDetokenizer(byteLevel)
        const parts = byteLevel.encode(value).map((id) => stream.push(id))
        expect(parts.join('')).toBe(value)
        expect(parts.join('')).not.toContain('\uFFFD')
        for (const part of parts) expect(part.isWellFormed()).toBe(true)
        expect(stream.flush()).toBe('')
      }),
    )
  })

  it('holds a character until it is complete and gives up when it cannot be', () => {
    const byte = (value: number): number => value + 3
    const stream = createDetokenizer(pieces)
    expect([0xf0, 0x9f, 0xa6, 0x99].map((each) => stream.push(byte(each)))).toEqual(['', '', '', '🦙'])
    expect([0xe2, 0x41].map((each) => stream.push(byte(each)))).toEqual(['', '\uFFFDA'])
    expect([0xff, 0xed, 0xa0].map((each) => stream.push(byte(each)))).toEqual(['\uFFFD', '', '\uFFFD\uFFFD'])
    stream.push(byte(0xf0))
    expect(stream.flush()).toBe('\uFFFD')
    expect(stream.flush()).toBe('')
  })

  it('keeps the first space of an answer, drops that of a text', () => {
    const ids = pieces.encode('a a', { addSpecial: false })
    expect(pieces.decode(ids)).toBe('a a')
    expect(pieces.decode(ids, { continuation: true })).toBe(' a a')
    const stream = createDetokenizer(pieces, { continuation: true })
    expect(ids.map((id) => stream.push(id)).join('')).toBe(' a a')
  })

  it('keeps a byte order mark', () => {
    expect(byteLevel.decode(byteLevel.encode('\uFEFFa\uFEFF'))).toBe('\uFEFFa\uFEFF')
  })
})
