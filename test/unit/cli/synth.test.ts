import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { synthesize } from '../../../src/synth/synthesize.ts'
import { cli, cliModels } from './cli-process.ts'

let models: Awaited<ReturnType<typeof cliModels>>
beforeAll(async () => {
  models = await cliModels()
})
afterAll(() => models[Symbol.asyncDispose]())

const digest = (path: string): string => createHash('sha256').update(readFileSync(path)).digest('hex')

test('writes what the options say, and only talk to stderr', async () => {
  const output = models.path('a.gguf')
  const shape = ['--preset', 'micro', '--layers', '2', '--expert-format', 'Q4_0', '--format', 'Q8_0', '--seed', '7']
  const { code, stdout, stderr } = await cli(['synth', '--arch', 'glm4moe', ...shape, '-o', output])
  expect({ code, stdout }).toEqual({ code: 0, stdout: '' })
  expect(stderr).toMatch(/a\.gguf: [\d.]+ MB, \d+ tensors, [\d.]+ s\n$/)
  await synthesize({ preset: 'micro', layers: 2, expertFormat: 'Q4_0', format: 'Q8_0', seed: 7, output: models.path('b.gguf') })
  expect(digest(output)).toBe(digest(models.path('b.gguf')))
})

test('replaces a file only when told to', async () => {
  const before = digest(models.tiny)
  const refused = await cli(['synth', '--preset', 'micro', '--layers', '2', '-o', models.tiny])
  expect(refused).toMatchObject({
    code: 1,
    stdout: '',
    stderr: expect.stringMatching(/^error ERR_FILE_ACCESS: .*--force replaces it\n$/) as string,
  })
  expect(digest(models.tiny)).toBe(before)
  expect((await cli(['synth', '--preset', 'micro', '--layers', '2', '-o', models.tiny, '--force'])).code).toBe(0)
  expect(digest(models.tiny)).not.toBe(before)
})

test('a directory that is not there fails and leaves nothing', async () => {
  const result = await cli(['synth', '--preset', 'micro', '-o', models.path('no/where.gguf')])
  expect(result).toMatchObject({ code: 1, stdout: '', stderr: expect.stringMatching(/^error ERR_FILE_ACCESS: /) as string })
  expect(readdirSync(models.path('.')).filter((name) => name.includes('partial') || name === 'no')).toEqual([])
})
