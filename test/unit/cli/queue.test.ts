import { expect, test } from 'vitest'
import { Queue } from '../../../src/cli/queue.ts'

test('values come out in order, whether they were there before the reader or not', async () => {
  const queue = new Queue<number>()
  queue.push(1)
  queue.push(2)
  setTimeout(() => {
    queue.push(3)
    queue.end()
  }, 5)
  const seen: number[] = []
  for await (const value of queue) seen.push(value)
  expect(seen).toEqual([1, 2, 3])
})

test('an error comes behind the values', async () => {
  const queue = new Queue<number>()
  const seen: number[] = []
  queue.push(1)
  queue.end(new Error('broken'))
  const reading = async (): Promise<void> => {
    for await (const value of queue) seen.push(value)
  }
  await expect(reading()).rejects.toThrow('broken')
  expect(seen).toEqual([1])
})
