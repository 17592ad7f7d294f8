import { InvalidArgumentError } from 'commander'
import { describe, expect, test } from 'vitest'
import { another, anotherOverride, byteSize, decimal, given, tokenList, whole } from '../../../src/cli/values.ts'

describe('accepted:', () => {
  test.each([
    [whole(0), '0', 0],
    [whole(1, 10), '+10', 10],
    [whole(-5), '-5', -5],
    [decimal, '0.5', 0.5],
    [decimal, '.5', 0.5],
    [decimal, '1e-3', 0.001],
    [byteSize, '24GiB', 24 * 2 ** 30],
    [byteSize, '1.5 gib', 1.5 * 2 ** 30],
    [byteSize, '500MB', 5e8],
    [byteSize, '4096', 4096],
  ])('%o of %s', (parse, text, value) => {
    expect(parse(text)).toBe(value)
  })

  test('token ids', () => {
    expect(tokenList('1, 2,30')).toEqual([1, 2, 30])
  })

  test('overrides', () => {
    const first = anotherOverride('a=b=wasm')
    expect(anotherOverride('_exps=cuda', first)).toEqual([
      { pattern: 'a=b', executor: 'wasm' },
      { pattern: '_exps', executor: 'cuda' },
    ])
  })

  test('an option several times', () => {
    expect(another('b', another('a'))).toEqual(['a', 'b'])
  })
})

describe('refused:', () => {
  test.each([
    ['words', whole(0), 'ten'],
    ['nothing', whole(0), ''],
    ['a fraction', whole(0), '1.5'],
    ['a size of nothing', byteSize, '0'],
    ['a size in other units', byteSize, '24GO'],
    ['a size below zero', byteSize, '-1GB'],
    ['an override of no executor', anotherOverride, '_exps'],
    ['an override of no pattern', anotherOverride, '=wasm'],
    ['an override of another executor', anotherOverride, '_exps=gpu'],
    ['hexadecimal', whole(0), '0x10'],
    ['too little', whole(1), '0'],
    ['too much', whole(1, 10), '11'],
    ['beyond exact numbers', whole(0), '99999999999999999999'],
    ['no number', decimal, 'warm'],
    ['a blank', decimal, ' '],
    ['infinity', decimal, 'Infinity'],
    ['an overflow', decimal, '1e999'],
    ['no ids', tokenList, ''],
    ['a gap', tokenList, '1,,2'],
    ['a negative id', tokenList, '-1'],
    ['an empty text', (text: string) => another(text), ''],
  ])('%s', (_, parse, text) => {
    expect(() => parse(text)).toThrow(InvalidArgumentError)
  })
})

test('options that were not given are not there', () => {
  expect(Object.keys(given({ a: undefined, b: 0, c: false }))).toEqual(['b', 'c'])
})
