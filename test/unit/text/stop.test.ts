import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createStopMatcher } from '../../../src/text/stop.ts'

/** The match that is complete first, of those the longest; from `indexOf` on the whole text. */
function findNaively(text: string, stops: readonly string[]): { text: string; match?: string } {
  const found = stops
    .map((stop) => ({ stop, start: text.indexOf(stop) }))
    .filter(({ start }) => start >= 0)
    .sort((a, b) => a.start + a.stop.length - b.start - b.stop.length || a.start - b.start)[0]
  return found === undefined ? { text } : { text: text.slice(0, found.start), match: found.stop }
}

function stream(chunks: readonly string[], stops: readonly string[]): { text: string; match?: string } {
  const matcher = createStopMatcher(stops)
  let text = ''
  for (const chunk of chunks) {
    const result = matcher.push(chunk)
    text += result.text
    if (result.stopped) return { text, match: result.match! }
  }
  return { text: text + matcher.flush() }
}

describe('stop matcher', () => {
  it('finds what indexOf finds, however the text is cut', () => {
    const unit = fc.constantFrom('a', 'b', 'c', '🦙')
    const stops = fc.array(fc.string({ unit, minLength: 1, maxLength: 5 }), { maxLength: 4 })
    fc.assert(
      fc.property(fc.array(fc.string({ unit, maxLength: 6 }), { maxLength: 12 }), stops, (chunks, strings) => {
        expect(stream(chunks, strings)).toEqual(findNaively(chunks.join(''), strings))
      }),
      { numRuns: 2000 },
    )
  })

  it('holds back no more than may begin a stop string', () => {
    const matcher = createStopMatcher(['\nUser:', 'END'])
    expect(matcher.push('hello\nUs')).toEqual({ text: 'hello', stopped: false })
    expect(matcher.push('e E')).toEqual({ text: '\nUse ', stopped: false })
    expect(matcher.push('N')).toEqual({ text: '', stopped: false })
    expect(matcher.push('D more')).toEqual({ text: '', stopped: true, match: 'END' })
    expect(matcher.push('more')).toEqual({ text: '', stopped: true, match: 'END' })
    expect(matcher.flush()).toBe('')
  })

  it('lets everything through without stop strings', () => {
    expect(createStopMatcher([]).push('abc')).toEqual({ text: 'abc', stopped: false })
  })

  it('returns what it held at the end', () => {
    const matcher = createStopMatcher(['abc'])
    expect(matcher.push('xab')).toEqual({ text: 'x', stopped: false })
    expect(matcher.flush()).toBe('ab')
  })

  it('refuses an empty stop string', () => {
    expect(() => createStopMatcher(['a', ''])).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }))
  })

  it('is linear in the text', () => {
    const matcher = createStopMatcher([`${'a'.repeat(10_000)}b`])
    const start = performance.now()
    matcher.push('a'.repeat(1_000_000))
    expect(performance.now() - start).toBeLessThan(5000)
  })
})
