import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { errorsPage } from '../../../scripts/errors-page.ts'
import { ERROR_CODES } from '../../../src/errors.ts'

const page = readFileSync(new URL('../../../docs/errors.md', import.meta.url), 'utf8')

test('docs/errors.md is what the table generates (npm run errors-page)', () => {
  expect(page).toBe(errorsPage())
})

test('every code has exactly one row, with its meaning', () => {
  const rows = [...page.matchAll(/^\| `(ERR_\w+)` \| (.+) \|$/gm)].map((match) => [match[1], match[2]])
  expect(rows).toEqual(Object.entries(ERROR_CODES))
})
