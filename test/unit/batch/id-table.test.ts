import { expect, test } from 'vitest'
import { IdTable } from '../../../src/batch/id-table.ts'

test('knows every id, its line, and whether it is answered; and no others', () => {
  const table = new IdTable()
  const count = 20_000
  for (let index = 0; index < count; index++) expect(table.add(`id ${index}`, index + 1)).toBeUndefined()
  for (let index = 0; index < count; index += 3) table.setAnswered(`id ${index}`)
  table.setAnswered('nobody')
  expect(table.size).toBe(count)
  for (let index = 0; index < count; index++) {
    expect(table.lineOf(`id ${index}`)).toBe(index + 1)
    expect(table.isAnswered(`id ${index}`)).toBe(index % 3 === 0)
  }
  expect([table.lineOf('nobody'), table.isAnswered('nobody')]).toEqual([undefined, false])
  expect(table.add('id 77', 5)).toBe(78)
  expect(table.size).toBe(count)
})
