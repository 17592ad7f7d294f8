import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { sweepShape } from '../../../src/cli/sweep.ts'
import { configurationsOf } from '../../../src/cli/sweep-configurations.ts'
import { summarize, sweepHeading, sweepLine } from '../../../src/cli/sweep-table.ts'
import { cli, cliModels } from './cli-process.ts'

type Row = Record<'pp' | 'tg' | 'n_kv' | 't_pp' | 'speed_pp' | 't_tg' | 'speed_tg', number> & { repeat?: number; configuration?: string }

const KEYS = ['pp', 'tg', 'n_kv', 't_pp', 'speed_pp', 't_tg', 'speed_tg']
const HEADING = '|    PP |     TG |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |'
const RULE = '|-------|--------|--------|----------|----------|----------|----------|'

let models: Awaited<ReturnType<typeof cliModels>>
beforeAll(async () => {
  models = await cliModels()
})
afterAll(() => models[Symbol.asyncDispose]())

const sweep = (...more: string[]): string[] => ['sweep', models.tokensOnly, '--threads', '2', '-c', '100', '--ubatch', '32', ...more]
const rowsOf = (stdout: string): Row[] =>
  stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Row)

describe('how deep a sweep goes', () => {
  test.each([
    ['a quarter of the ubatch is decoded', 512, 128, undefined, { pp: 128, tg: 32, rows: 4 }],
    ['a last part of an ubatch is left out', 500, 128, undefined, { pp: 128, tg: 32, rows: 3 }],
    ['at least one token is decoded', 8, 2, undefined, { pp: 2, tg: 1, rows: 4 }],
    ['one row where the ubatch fills the context', 64, 64, 1, { pp: 64, tg: 1, rows: 1 }],
    ['decoding more than an ubatch needs room as well', 512, 128, 200, { pp: 128, tg: 200, rows: 3 }],
  ])('%s', (_, contextTokens, ubatch, tg, shape) => {
    expect(sweepShape({ contextTokens, ubatch }, tg)).toEqual(shape)
  })
})

test('the table is the field’s', () => {
  const row = { pp: 512, tg: 128, n_kv: 1024, t_pp: 1.305, speed_pp: 392.384, t_tg: 2.0711, speed_tg: 61.806 }
  expect(sweepHeading(false)).toBe(`${HEADING}\n${RULE}\n`)
  expect(sweepLine(row)).toBe('|   512 |    128 |   1024 |    1.305 |   392.38 |    2.071 |    61.81 |\n')
})

test('several sweeps give medians, and ranges in columns of their own', () => {
  const rows = [4, 1, 2].map((seconds) => ({
    pp: 8,
    tg: 2,
    n_kv: 0,
    t_pp: seconds,
    speed_pp: 8 / seconds,
    t_tg: seconds,
    speed_tg: 2 / seconds,
  }))
  const all = summarize(rows)
  expect(all).toMatchObject({ t_pp: 2, speed_pp: 4, t_tg: 2, speed_tg: 1, pp_range: [2, 8], tg_range: [0.5, 2] })
  expect(summarize(rows.slice(0, 2))).toMatchObject({ t_pp: 2.5, speed_pp: 5 })
  const lines = [...sweepHeading(true).trimEnd().split('\n'), sweepLine(all).trimEnd()]
  expect(lines[0]).toBe(`${HEADING}     S_PP t/s range |     S_TG t/s range |`)
  expect(new Set(lines.map(({ length }) => length)).size).toBe(1)
  expect(lines[2]).toMatch(
    /^\|     8 \|      2 \|      0 \|    2.000 \|     4.00 \|    2.000 \|     1.00 \| +2.00 - 8.00 \| +0.50 - 2.00 \|$/,
  )
})

test('--json has a line per depth, with the field’s keys', async () => {
  const { code, stdout, stderr } = await cli(sweep('--json'))
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  const rows = rowsOf(stdout)
  expect(rows.map(({ n_kv }) => n_kv)).toEqual([0, 32, 64])
  for (const row of rows) {
    expect(Object.keys(row)).toEqual(KEYS)
    expect(row).toMatchObject({ pp: 32, tg: 8 })
    expect(Math.min(row.t_pp, row.t_tg)).toBeGreaterThan(0)
    expect(row.speed_pp * row.t_pp).toBeCloseTo(32, 1)
    expect(row.speed_tg * row.t_tg).toBeCloseTo(8, 1)
  }
})

test('a person gets the table, and nothing else on stdout', async () => {
  const { code, stdout, stderr } = await cli(sweep('--tg', '3'))
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  const [heading, rule, ...rows] = stdout.trimEnd().split('\n')
  expect([heading, rule]).toEqual([HEADING, RULE])
  expect(rows.map((row) => row.split('|').slice(1, 4).map(Number))).toEqual([
    [32, 3, 0],
    [32, 3, 32],
    [32, 3, 64],
  ])
})

test('repeated: every sweep’s lines in JSON, one table for a person', async () => {
  const rows = rowsOf((await cli(sweep('--json', '--repeat', '2'))).stdout)
  expect(rows.map(({ n_kv, repeat }) => [repeat, n_kv])).toEqual([1, 2].flatMap((repeat) => [0, 32, 64].map((depth) => [repeat, depth])))
  expect(Object.keys(rows[0]!)).toEqual([...KEYS, 'repeat'])
  const { stdout } = await cli(sweep('--repeat', '3'))
  expect(stdout.trimEnd().split('\n')).toHaveLength(5)
})

test('--profile counts the sweep’s steps and not the warm-up’s', async () => {
  const { stdout, stderr } = await cli(sweep('--json', '--profile'))
  expect(rowsOf(stdout)).toHaveLength(3)
  expect(stderr).toMatch(/^prefill: 3 steps, 96 tokens\n[^]*\ndecode: 24 steps, 24 tokens\n/)
})

test('the context is --context, short -c', async () => {
  const { stdout } = await cli(['sweep', models.tokensOnly, '--context', '40', '--ubatch', '20', '--json'])
  expect(rowsOf(stdout).map(({ n_kv }) => n_kv)).toEqual([0, 20])
})

describe.concurrent('wrong usage is exit 2 with nothing on stdout:', () => {
  test.each([
    ['a context shorter than the ubatch', ['-c', '16', '--ubatch', '32'], '--context must be at least the --ubatch of 32, not 16'],
    ['a context shorter than what is decoded', ['-c', '32', '--ubatch', '32', '--tg', '33'], 'at least the --tg of 33, not 32'],
    ['a context beyond the model’s', ['-c', '9999999'], '--context must be a whole number from 1 to'],
    ['nothing to decode', ['--tg', '0'], 'must be a whole number from 1'],
    ['no repeat', ['--repeat', '0'], 'must be a whole number from 1'],
  ])('%s', async (_, args, message) => {
    const { code, stdout, stderr } = await cli(['sweep', models.tokensOnly, ...args])
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
    expect(stderr).toMatch(/^error ERR_ARGUMENT: .*\n$/)
    expect(stderr).toContain(message)
  })
})

describe('configurations', () => {
  const labels = async (paths: string[], pipelines: string[]): Promise<string[]> =>
    (await configurationsOf(paths, pipelines, {})).map(({ label }) => label)

  test('are named by what tells them apart', async () => {
    expect(await labels(['x/glm-00001-of-00004.gguf'], ['cpu'])).toEqual(['glm'])
    expect(await labels(['glm.gguf'], ['cpu', 'hybrid'])).toEqual(['cpu', 'hybrid'])
    expect(await labels(['a.gguf', 'b.gguf'], ['cpu'])).toEqual(['a', 'b'])
    expect(await labels(['a.gguf', 'b.gguf'], ['cpu', 'gpu'])).toEqual(['a, cpu', 'a, gpu', 'b, cpu', 'b, gpu'])
    expect(await labels(['x/a.gguf', 'y/a.gguf'], ['cpu'])).toEqual(['x/a.gguf', 'y/a.gguf'])
    expect(await labels(['a.gguf'], ['cpu', 'cpu'])).toEqual(['cpu', 'cpu (2)'])
  })

  test('of several pipelines, each gets the options that it understands', async () => {
    const flags = { threads: 2, gpuLayers: 4, gpuMemory: 1, overlap: false }
    const found = await configurationsOf(['a.gguf'], ['cpu', 'hybrid', 'gpu'], flags)
    expect(found.map((each) => each.flags)).toEqual([
      { threads: 2, pipeline: 'cpu' },
      { threads: 2, gpuLayers: 4, gpuMemory: 1, overlap: false, pipeline: 'hybrid' },
      { threads: 2, gpuMemory: 1, overlap: false, pipeline: 'gpu' },
    ])
    expect((await configurationsOf(['a.gguf'], ['cpu'], flags))[0]!.flags).toEqual({ ...flags, pipeline: 'cpu' })
  })
})

describe('several configurations', () => {
  test('take turns; the field’s keys come first, then which configuration and which sweep it is', async () => {
    const { code, stdout } = await cli(sweep('--pipeline', 'cpu', '--pipeline', 'cpu', '--repeat', '2', '--json', '-c', '64'))
    expect(code).toBe(0)
    const rows = rowsOf(stdout)
    expect(Object.keys(rows[0]!)).toEqual([...KEYS, 'configuration', 'model', 'pipeline', 'repeat'])
    expect(rows.map(({ configuration, repeat, n_kv }) => `${configuration} ${repeat} ${n_kv}`)).toEqual([
      'cpu 1 0',
      'cpu 1 32',
      'cpu (2) 1 0',
      'cpu (2) 1 32',
      'cpu 2 0',
      'cpu 2 32',
      'cpu (2) 2 0',
      'cpu (2) 2 32',
    ])
  })

  test('a table for each, and a picture of all', async () => {
    const picture = models.path('sweep.svg')
    const { code, stdout, stderr } = await cli(['sweep', models.tokensOnly, models.tiny, '-c', '64', '--ubatch', '32', '--svg', picture])
    expect({ code, stderr }).toEqual({ code: 0, stderr: `drawn: ${picture}\n` })
    expect(stdout).toMatch(/^tokens-only\n\|    PP [^]*\n\ntiny\n\|    PP /)
    const svg = readFileSync(picture, 'utf8')
    expect(svg).toContain('>tokens-only, tiny: speed at every depth of the cache</text>')
    expect(svg).toMatch(/>[^<]* cores \(\d+ threads\), [^<]*; Node \d/)
  })

  test('nothing is measured when one of them cannot be run, or the picture not be written', async () => {
    expect(await cli(['sweep', models.tokensOnly, 'no-such.gguf'])).toMatchObject({ code: 1, stdout: '' })
    expect(await cli(sweep('--svg', '/no/such/folder/x.svg'))).toMatchObject({ code: 1, stdout: '' })
    expect((await cli(sweep('--svg', models.path('.')))).stderr).toMatch(/not a file/)
  })
})

test('--help has an example', async () => {
  expect((await cli(['sweep', '--help'])).stdout).toMatch(/\nExamples:\n {2}\$ tandem sweep /)
})
