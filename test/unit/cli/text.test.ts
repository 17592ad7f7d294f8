import { expect, test } from 'vitest'
import { barText } from '../../../src/cli/progress-bar.ts'
import { bytesText, countText, quoted, table } from '../../../src/cli/text.ts'

test.each([
  [0, '0 bytes'],
  [999, '999 bytes'],
  [1000, '1.00 kB'],
  [12_038_720, '12.0 MB'],
  [999_600, '1.00 MB'],
  [2e9, '2.00 GB'],
  [355e12, '355 TB'],
])('%d bytes are %s', (bytes, text) => {
  expect(bytesText(bytes)).toBe(text)
})

test('thousands are apart', () => {
  expect(countText(1_234_567)).toBe('1,234,567')
})

test('a table has numbers flush right, text flush left, and no trailing blanks', () => {
  expect(
    table([
      ['a', 1, 'x'],
      ['long', 100, ''],
    ]),
  ).toBe('a       1  x\nlong  100\n')
  expect(table([])).toBe('')
})

test('quoted text stays on one line, within the limit, and free of control characters', () => {
  expect(quoted('a\nb\u001B[31m')).toBe('"a\\nb\\u001b[31m"')
  expect(quoted('\u009B31m')).toBe('"\uFFFD31m"')
  expect(quoted('x'.repeat(2000), 3)).toBe('"xxx" ... (2,000 characters)')
})

test('a bar shows how far the work is', () => {
  expect(barText('loading', 6e6, 12e6, 'bytes')).toBe('loading [============            ] 50 %, 6.00 MB of 12.0 MB')
  expect(barText('reading', 0, 0, 'tokens')).toContain('100 %, 0 of 0 tokens')
})
