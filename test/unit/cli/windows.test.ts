import fc from 'fast-check'
import { expect, test } from 'vitest'
import { windowsOf } from '../../../src/cli/windows.ts'

test('a text is cut without overlap', () => {
  expect(windowsOf([1, 2, 3, 4, 5], 2, undefined)).toEqual([
    [1, 2],
    [3, 4],
  ])
  expect(windowsOf([1, 2, 3, 4, 5], 3, undefined)).toEqual([
    [1, 2, 3],
    [4, 5],
  ])
})

test('with a begin token every token of the text is scored', () => {
  expect(windowsOf([1, 2, 3], 3, 9)).toEqual([
    [9, 1, 2],
    [9, 3],
  ])
})

test('nothing to score, no window', () => {
  expect([windowsOf([], 8, 9), windowsOf([1], 8, undefined), windowsOf([1, 2], 1, 9), windowsOf([1, 2], 1, undefined)]).toEqual([
    [],
    [],
    [],
    [],
  ])
})

test('windows are within the context and lose at most one token', () => {
  const tokens = fc.array(fc.nat(100), { maxLength: 60 })
  fc.assert(
    fc.property(tokens, fc.integer({ min: 2, max: 20 }), fc.option(fc.constant(7), { nil: undefined }), (text, context, bos) => {
      const windows = windowsOf(text, context, bos)
      expect(windows.every((window) => window.length <= context && window.length > 1)).toBe(true)
      const kept = windows.flatMap((window) => (bos === undefined ? window : window.slice(1)))
      expect(kept).toEqual(text.slice(0, kept.length))
      expect(text.length - kept.length).toBeLessThanOrEqual(bos === undefined ? 1 : 0)
    }),
    { seed: 1 },
  )
})
