import { afterAll, beforeAll, expect, test } from 'vitest'
import { profileText } from '../../../src/cli/profile.ts'
import type { Profile, StepProfile } from '../../../src/index.ts'
import { cli, cliModels } from './cli-process.ts'

let models: Awaited<ReturnType<typeof cliModels>>
beforeAll(async () => {
  models = await cliModels()
})
afterAll(() => models[Symbol.asyncDispose]())

const generate = (...more: string[]): string[] => [
  'generate',
  models.tiny,
  '-p',
  'hello there',
  '--max-tokens',
  '10',
  '--threads',
  '2',
  ...more,
]

const NOTHING: StepProfile = { steps: 0, tokens: 0, ms: 0, begin: { ms: 0, waitMs: 0 }, stages: [], wakeMs: 0, handOffMs: 0 }

test('a table per kind of step, numbers flush right', () => {
  const decode: StepProfile = {
    steps: 1200,
    tokens: 1200,
    ms: 20,
    begin: { ms: 1, waitMs: 0.5 },
    stages: [
      { stage: 'embed', calls: 1, ms: 1, waitMs: 0 },
      { stage: 'attention', calls: 4, ms: 15.5, waitMs: 2.25, weightBytes: 1.55e8, gbPerSecond: 10 },
    ],
    wakeMs: 0.5,
    handOffMs: 2,
  }
  expect(profileText({ decode, prefill: NOTHING })).toBe(
    `
decode: 1,200 steps, 1,200 tokens
           ms/step      %  waiting   GB/s
begin        1.000    5.0    0.500
embed        1.000    5.0    0.000
attention   15.500   77.5    2.250  10.00
wake-up      0.500    2.5
hand-off     2.000   10.0
step        20.000  100.0    2.750
`.trim(),
  )
})

test('generate --profile tells it on stderr behind the line about speed', async () => {
  const { code, stdout, stderr } = await cli(generate('--profile'))
  expect(code).toBe(0)
  expect(stdout).toBe((await cli(generate('-q'))).stdout)
  expect(stderr).toMatch(
    /^prompt .*\nprefill: 1 steps, \d+ tokens\n[^]*\n\ndecode: 9 steps, 9 tokens\n +ms\/step +% +waiting +GB\/s\nbegin /,
  )
  for (const name of ['embed', 'attention', 'routedExperts', 'head', 'wake-up', 'hand-off', 'step']) {
    expect(stderr.match(new RegExp(`^${name} +-?[\\d.]+ +-?[\\d.]+`, 'gm'))).toHaveLength(2)
  }
})

test('with --json it is a field of the line and not on stderr', async () => {
  const { stdout, stderr } = await cli(generate('--profile', '--json'))
  expect(stderr).toMatch(/^prompt .*\n$/)
  const result = JSON.parse(stdout) as { profile: Profile }
  expect(Object.keys(result)).toEqual(['text', 'promptTokens', 'tokens', 'finishReason', 'timings', 'profile'])
  expect(Object.keys(result.profile)).toEqual(['decode', 'prefill'])
  expect(result.profile.decode).toMatchObject({ steps: 9, tokens: 9 })
  expect(result.profile.prefill.steps).toBe(1)
})

test('--quiet has no table', async () => {
  expect((await cli(generate('--profile', '--quiet'))).stderr).toBe('')
})
