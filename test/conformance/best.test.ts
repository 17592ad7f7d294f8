/** keep_best: the search for the best logit goes on over parts, and gives what one look at the whole row would. */
import { beforeEach, describe, expect, test } from 'vitest'
import { KERNEL_STATUS } from '../../src/abi/kernels.ts'
import { randomRows } from './reference.ts'
import { HOSTS, floats, type KernelHost, upload } from './kernel-host.ts'

/** One pass: the first that is not finite, or else the first of the largest. */
function bestOf(row: Float32Array): number {
  const broken = row.findIndex((value) => !Number.isFinite(value))
  return broken >= 0 ? broken : row.indexOf(Math.max(...row))
}

/** Searches rows of `columns` in parts that end at `cuts`. */
function search(host: KernelHost, values: Float32Array, columns: number, cuts: readonly number[]): { ids: Int32Array; best: Float32Array } {
  const rows = values.length / columns
  const [logits, ids, best] = [upload(host, values), upload(host, new Int32Array(rows).fill(-1)), host.allocate(rows * 4)]
  cuts.forEach((end, part) => {
    expect(host.call('keep_best', ids, best, logits, columns, part === 0 ? 0 : cuts[part - 1]!, end, rows)).toBe(KERNEL_STATUS.ok)
  })
  const bytes = host.read(ids, rows * 4)
  return { ids: new Int32Array(bytes.buffer, bytes.byteOffset, rows), best: floats(host, best, rows) }
}

const COLUMNS = 61
const CUTS: readonly (readonly number[])[] = [[61], [8, 61], [1, 2, 3, 24, 24, 61], [40, 60, 61]]

describe.each(HOSTS.filter(({ kernels }) => kernels.has('keep_best')))('keep_best on $name', (host) => {
  beforeEach(() => host.reset())

  /** What is found in each row, cut in any way. */
  const found = (values: Float32Array): unknown => CUTS.map((cuts) => search(host, values, COLUMNS, cuts))

  const wanted = (values: Float32Array): unknown => {
    const rows = Array.from({ length: values.length / COLUMNS }, (_, row) => values.slice(row * COLUMNS, (row + 1) * COLUMNS))
    const ids = Int32Array.from(rows, bestOf)
    return CUTS.map(() => ({ ids, best: Float32Array.from(rows, (row, index) => row[ids[index]!]!) }))
  }

  test('the largest, wherever it is', () => {
    const rows = randomRows(5 * COLUMNS, 1)
    expect(found(rows)).toEqual(wanted(rows))
    for (let at = 0; at < COLUMNS; at++) {
      const values = new Float32Array(COLUMNS).fill(-3).fill(-2, at, at + 1)
      expect(found(values)).toEqual(wanted(values))
    }
  })

  test.each<[string, (id: number) => number]>([
    ['all', () => 7],
    ['some of the largest', (id) => (id % 20 === 19 ? 4 : -id)],
    ['zeros of either sign', (id) => (id % 2 === 1 ? 0 : -0)],
  ])('of equals the lowest id: %s', (_name, value) => {
    const values = Float32Array.from({ length: COLUMNS }, (_, id) => value(id))
    expect(found(values)).toEqual(wanted(values))
  })

  test.each([NaN, Infinity, -Infinity])('%s comes before all else, and the first of them', (broken) => {
    for (let at = 0; at < COLUMNS; at++) {
      const values = randomRows(2 * COLUMNS, at)
      values[at] = broken
      if (at % 3 === 0) values[COLUMNS - 1] = NaN
      expect(found(values)).toEqual(wanted(values))
    }
  })

  test('nothing is found in nothing, and wrong ranges are refused', () => {
    const { ids } = search(host, new Float32Array(COLUMNS), COLUMNS, [0])
    expect([...ids]).toEqual([-1])
    const call = (begin: number, end: number, rows: number): number => host.call('keep_best', 64, 64, 64, COLUMNS, begin, end, rows)
    for (const [begin, end, rows] of [
      [-1, 2, 1],
      [3, 2, 1],
      [0, COLUMNS + 1, 1],
      [0, 1, -1],
    ] as const) {
      expect(call(begin, end, rows)).toBe(KERNEL_STATUS.shape)
    }
  })
})
