import { writeFile } from 'node:fs/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { planModel } from '../../../src/index.ts'
import { cli, cliModels } from './cli-process.ts'

let models: Awaited<ReturnType<typeof cliModels>>
beforeAll(async () => {
  models = await cliModels()
})
afterAll(() => models[Symbol.asyncDispose]())

test('--json has the devices’ bytes and the stages', async () => {
  const { code, stdout, stderr } = await cli(['plan', models.tiny, '--json', '--context', '64', '--threads', '3'])
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  const { plan, program } = await planModel(models.tiny, { contextTokens: 64, threads: 3, sequences: 1 })
  const result = JSON.parse(stdout) as { devices: object[]; stages: { stage: string }[] }
  expect(Object.keys(result)).toEqual(['devices', 'stages'])
  expect(result.devices).toEqual(plan.devices)
  expect(result.stages.map(({ stage }) => stage)).toEqual(program.calls.map(({ stage }) => stage))
})

test('a person sees devices and stages', async () => {
  const { stdout } = await cli(['plan', models.tiny])
  expect(stdout).toMatch(/^model +"tiny" \(glm4moe\)\npipeline +cpu\n/)
  expect(stdout).toMatch(/\nwasm +[\d.]+ MB +[\d.]+ kB +[\d.]+ kB +[\d.]+ (kB|MB)\n/)
  expect(stdout).toMatch(/\n1 +attention +wasm +0 +[\d.]+ kB +F32\n/)
})

test.each(['hybrid', 'gpu'])('%s needs a device that is not there', async (pipeline) => {
  const { code, stdout, stderr } = await cli(['plan', models.tiny, '--pipeline', pipeline])
  expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
  expect(stderr).toMatch(/^error ERR_DEVICE_ABSENT: .*use --pipeline cpu\n$/)
})

test('a pipeline may be a module', async () => {
  const path = models.path('mine.mjs')
  const stages = ['embed', 'attention', 'denseFfn', 'router', 'sharedExperts', 'routedExperts', 'combine', 'head']
  const placement = JSON.stringify(Object.fromEntries(stages.map((stage) => [stage, 'wasm'])))
  await writeFile(path, `export default { name: 'mine', placement: ${placement}, ringDepth: 1 }\n`)
  expect((await cli(['plan', models.tiny, '--pipeline', path])).stdout).toMatch(/\npipeline +mine\n/)
})

test('a pipeline that is not there fails', async () => {
  const result = await cli(['plan', models.tiny, '--pipeline', 'nowhere.ts'])
  expect(result).toMatchObject({
    code: 1,
    stdout: '',
    stderr: expect.stringMatching(/^error ERR_PIPELINE_INVALID: 'nowhere.ts'/) as string,
  })
})

test('a small arena limit is obeyed', async () => {
  const { plan } = await planModel(models.tiny, { contextTokens: 32, ubatch: 4, sequences: 1 })
  const half = Math.ceil((plan.arena.end + plan.arenas[0]!) / 2)
  const limits = ['--context', '32', '--ubatch', '4', '--arena-bytes']
  expect((await cli(['plan', models.tiny, ...limits, `${half}`])).stdout).toMatch(/\narenas +[2-9]\n/)
  expect((await cli(['plan', models.tiny, ...limits, '70000'])).stderr).toMatch(/^error ERR_ARENA_LIMIT: /)
})
