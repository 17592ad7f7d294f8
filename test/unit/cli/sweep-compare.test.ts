import { writeFile } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { compareResults, parseResults } from '../../../src/cli/sweep-compare.ts'
import { comparisonText } from '../../../src/cli/sweep-compare-text.ts'
import { temporaryDirectory } from '../../fixtures/build-gguf.ts'
import { cli } from './cli-process.ts'

const row = (n_kv: number, speed_pp: number, speed_tg: number, more: object = {}): string =>
  `${JSON.stringify({ pp: 128, tg: 32, n_kv, t_pp: 128 / speed_pp, speed_pp, t_tg: 32 / speed_tg, speed_tg, ...more })}\n`
const parse = (name: string, ...lines: string[]): ReturnType<typeof parseResults> => parseResults(lines.join(''), name)

test('per depth both speeds and how much faster the second is', () => {
  const { rows, notes } = compareResults(parse('a', row(0, 100, 10), row(128, 80, 8)), parse('b', row(128, 60, 8), row(0, 150, 11)))
  expect(notes).toEqual([])
  expect(rows).toEqual([
    { configuration: '', pp: 128, tg: 32, n_kv: 0, speed_pp: [100, 150], delta_pp: 50, speed_tg: [10, 11], delta_tg: 10 },
    { configuration: '', pp: 128, tg: 32, n_kv: 128, speed_pp: [80, 60], delta_pp: -25, speed_tg: [8, 8], delta_tg: 0 },
  ])
  expect(comparisonText(rows, ['a', 'b'])).toBe(`a: a, b: b; tokens per second

N_KV  S_PP a  S_PP b    delta  S_TG a  S_TG b    delta
   0  100.00  150.00  +50.0 %   10.00   11.00  +10.0 %
 128   80.00   60.00  -25.0 %    8.00    8.00    0.0 %
mean                   +6.1 %                   +4.9 %
`)
})

test('several sweeps: medians, and a mark where the ranges overlap', () => {
  const repeated = (...speeds: readonly number[]): string[] =>
    speeds.map((speed, index) => row(0, speed, 10 * speed, { repeat: index + 1 }))
  const { rows } = compareResults(parse('a', ...repeated(10, 12, 11)), parse('b', ...repeated(11.5, 12.5, 14)))
  expect(rows[0]).toMatchObject({ speed_pp: [11, 12.5], delta_pp: 13.64, overlap_pp: true, overlap_tg: true })
  expect(comparisonText(rows, ['a', 'b'])).toMatch(/\+13\.6 % ~.*\n~: the ranges/)
  expect(compareResults(parse('a', ...repeated(10, 12)), parse('b', ...repeated(12.1, 14))).rows[0]).toMatchObject({ overlap_pp: false })
})

test('the lines of llama-sweep-bench, with keys of its own in front, are understood', () => {
  const theirs =
    '{"n_kv_max": 4096, "n_threads": 8, "pp": 128, "tg": 32, "n_kv": 0, "t_pp": 1.0, "speed_pp": 128.0, "t_tg": 1.0, "speed_tg": 32.0}\n'
  expect(compareResults(parseResults(theirs, 'theirs'), parse('ours', row(0, 256, 32))).rows[0]).toMatchObject({
    delta_pp: 100,
    delta_tg: 0,
  })
})

test('several configurations are matched by their names, and what one file lacks is told', () => {
  const of = (configuration: string): string => row(0, 100, 10, { configuration })
  const { rows, notes } = compareResults(parse('a', of('cpu'), of('hybrid')), parse('b', of('hybrid'), of('gpu')))
  expect(rows.map(({ configuration }) => configuration)).toEqual(['hybrid'])
  expect(notes).toEqual(["note: 'cpu' is in a alone, and left out", "note: 'gpu' is in b alone, and left out"])
  // one in each: whatever they are called
  expect(compareResults(parse('a', of('cpu')), parse('b', of('hybrid'))).rows).toHaveLength(1)
})

test('depths of one file alone are left out and counted', () => {
  const { rows, notes } = compareResults(parse('a', row(0, 1, 1), row(128, 1, 1)), parse('b', row(0, 1, 1)))
  expect({ rows: rows.length, notes }).toEqual({ rows: 1, notes: ['note: 1 depths are in one of the files alone, and left out'] })
})

describe('files that do not match are refused:', () => {
  const one = row(0, 1, 1)
  test.each([
    ['not JSON', 'hello\n', one, 'a: line 1 is not JSON'],
    ['other lines', '{"pp":1}\n', one, 'a: line 1 has no number "tg"'],
    ['null', 'null\n', one, 'a: line 1 has no number "pp"'],
    ['nothing', '\n', one, 'a has no lines'],
    ['another ubatch', row(0, 1, 1, { pp: 64 }), one, 'at n_kv 0 a has pp 64, tg 32, and b pp 128, tg 32'],
    ['two sweeps in one', one + row(0, 1, 1, { tg: 8 }), one, 'a: line 2 is of another sweep'],
    ['no common depth', row(64, 1, 1), one, 'no depth (n_kv) in common'],
    [
      'no common configuration',
      row(0, 1, 1, { configuration: 'x' }) + row(0, 1, 1, { configuration: 'y' }),
      row(0, 1, 1, { configuration: 'z' }),
      "a has 'x', 'y', b has 'z'",
    ],
  ])('%s', (_, a, b, message) => {
    expect(() => compareResults(parseResults(a, 'a'), parseResults(b, 'b'))).toThrow(message)
  })
})

describe('on the command line', () => {
  let directory: Awaited<ReturnType<typeof temporaryDirectory>>
  let files: string[]
  beforeAll(async () => {
    directory = await temporaryDirectory()
    files = ['a.jsonl', 'b.jsonl'].map((name) => `${directory.path}/${name}`)
    await writeFile(files[0]!, row(0, 100, 10))
    await writeFile(files[1]!, row(0, 200, 5))
  })
  afterAll(() => directory[Symbol.asyncDispose]())

  test('--json has a line per depth', async () => {
    const { code, stdout, stderr } = await cli(['sweep', '--compare', ...files, '--json'])
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(JSON.parse(stdout)).toEqual({ pp: 128, tg: 32, n_kv: 0, speed_pp: [100, 200], delta_pp: 100, speed_tg: [10, 5], delta_tg: -50 })
  })

  test.each([
    ['one file', () => ['--compare', files[0]!], 2, '--compare takes two files'],
    ['a model as well', () => ['model.gguf', '--compare', ...files], 2, '--compare takes two files and no model'],
    ['no such file', () => ['--compare', files[0]!, 'no-such-file'], 1, 'no-such-file: no such file'],
  ])('%s is refused', async (_, args, exit, message) => {
    const { code, stdout, stderr } = await cli(['sweep', ...args()])
    expect({ code, stdout }).toEqual({ code: exit, stdout: '' })
    expect(stderr).toContain(message)
  })
})
