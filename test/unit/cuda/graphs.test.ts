/** Which steps become graphs, and which graphs stay. */
import { expect, test } from 'vitest'
import { Graphs, keysBucket } from '../../../src/cuda/graphs.ts'
import type { CudaFunctions } from '../../../src/cuda/library.ts'

/** Graphs over a library that only keeps a list of what is asked of it. */
function recorded(): { graphs: Graphs; calls: string[]; get: (key: string) => bigint | undefined } {
  const calls: string[] = []
  let made = 0n
  const tcu = {
    tcu_capture_begin: () => void calls.push('begin'),
    tcu_capture_end: () => {
      calls.push('end')
      return ++made
    },
    tcu_graph_free: (_: bigint, graph: bigint) => void calls.push(`free ${graph}`),
  } as unknown as CudaFunctions
  const graphs = new Graphs(tcu, 0n, 1)
  return { graphs, calls, get: (key) => graphs.get(key, () => void calls.push(`stages of ${key}`)) }
}

test('contexts share a graph until they have doubled', () => {
  expect([1, 255, 256, 257, 512, 513, 3000, 4000].map((keys) => keysBucket(keys, 4096))).toEqual([
    256, 256, 256, 512, 512, 1024, 4096, 4096,
  ])
  expect(keysBucket(3, 96)).toBe(96)
})

test('numbers are recorded when they come a second time, and launched from then on', () => {
  const { calls, get } = recorded()
  expect([get('a'), get('b'), get('a'), get('a'), get('b')]).toEqual([undefined, undefined, 1n, 1n, 2n])
  expect(calls).toEqual(['begin', 'stages of a', 'end', 'begin', 'stages of b', 'end'])
})

test('the graph that was not used for longest is freed', () => {
  const { calls, get } = recorded()
  const keys = Array.from({ length: 32 }, (_, index) => `key ${index}`)
  for (const key of [...keys, ...keys, 'key 0']) get(key)
  calls.length = 0
  get('new')
  expect(calls).toEqual(['free 2'])
  expect(get('key 0')).toBe(1n)
  expect(get('key 1')).toBeUndefined()
})
