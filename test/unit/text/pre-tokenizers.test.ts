import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { preTokenizer, splitWords } from '../../../src/text/pre-tokenizers.ts'

const split = (name: string, text: string): string[] => splitWords(text, preTokenizer(name).patterns)
const NAMES = ['default', 'gpt-2', 'glm4', 'qwen2', 'qwen35', 'llama-bpe', 'deepseek-llm', 'deepseek-coder', 'deepseek-v3', 'gpt-4o']

describe('pre-tokenizers', () => {
  it.each(NAMES)('%s loses nothing', (name) => {
    const text = fc.oneof(fc.string({ unit: 'binary' }), fc.string({ unit: fc.constantFrom(...`aZ'sS1 \t\r\n!_我ü\u00a0\u0085\ufeff`) }))
    fc.assert(
      fc.property(text, (value) => {
        const words = split(name, value)
        expect(words.join('')).toBe(value)
        expect(words).not.toContain('')
      }),
    )
  })

  it.each(NAMES)('%s takes a long run of anything in linear time', (name) => {
    const start = performance.now()
    for (const unit of [' ', '\n', 'a', 'A', '1', '.', '我', ' \n', '\u00a0']) split(name, `${unit.repeat(200_000)}x`)
    expect(performance.now() - start).toBeLessThan(10_000)
  })

  it('refuse a word that is too long by code', () => {
    expect(() => split('glm4', '我'.repeat(16_000_000))).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }))
  })

  it('cut digits by family', () => {
    expect(split('gpt-2', '12345')).toEqual(['12345'])
    expect(split('glm4', '12345')).toEqual(['123', '45'])
    expect(split('qwen2', '123')).toEqual(['1', '2', '3'])
    expect(split('deepseek-coder', '12')).toEqual(['1', '2'])
    expect(split('deepseek-v3', 'a12345')).toEqual(['a', '123', '45'])
    expect(split('default', '1234567')).toEqual(['123', '456', '7'])
  })

  it('cut contractions by family', () => {
    expect(split('gpt-2', "I'VE we've")).toEqual(['I', "'", 'VE', ' we', "'ve"])
    expect(split('glm4', "I'VE we've")).toEqual(['I', "'VE", ' we', "'ve"])
    expect(split('gpt-4o', "We'VE don't")).toEqual(["We'VE", " don't"])
  })

  it('keep the last space for the next word', () => {
    expect(split('gpt-2', 'a   b')).toEqual(['a', '  ', ' b'])
    expect(split('glm4', 'a  \n\n  b')).toEqual(['a', '  \n\n', ' ', ' b'])
    expect(split('deepseek-llm', 'a\n\nb  ')).toEqual(['a', '\n', '\n', 'b', '  '])
  })

  it('use white space as Unicode has it, not as JavaScript does', () => {
    expect(split('gpt-2', 'a\u0085\u0085b')).toEqual(['a', '\u0085', '\u0085', 'b'])
    expect(split('gpt-2', 'a \uFEFFb')).toEqual(['a', ' \uFEFF', 'b'])
  })

  it('split at letter case in o200k, at scripts in DeepSeek', () => {
    expect(split('gpt-4o', 'helloWorld HTTPServer')).toEqual(['hello', 'World', ' HTTPServer'])
    expect(split('deepseek-llm', 'abc我想xyz')).toEqual(['abc', '我想', 'xyz'])
    expect(split('deepseek-v3', 'これ我x')).toEqual(['これ我', 'x'])
    expect(split('deepseek-v3', '(foo) ...bar')).toEqual(['(foo', ')', ' ...', 'bar'])
  })
})
