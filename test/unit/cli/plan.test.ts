import { writeFile } from 'node:fs/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { planModel } from '../../../src/index.ts'
import { encodeGguf, tinyGlm4moe } from '../../fixtures/build-gguf.ts'
import { cli, cliModels } from './cli-process.ts'

let models: Awaited<ReturnType<typeof cliModels>>
beforeAll(async () => {
  models = await cliModels()
})
afterAll(() => models[Symbol.asyncDispose]())

test('--json has the devices’ bytes and the stages', async () => {
  const { code, stdout, stderr } = await cli(['plan', models.tiny, '--json', '--context', '64', '--threads', '3'])
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  const { plan, programs } = await planModel(models.tiny, { contextTokens: 64, threads: 3, sequences: 1 })
  const result = JSON.parse(stdout) as { devices: object[]; stages: { stage: string }[] }
  expect(Object.keys(result)).toEqual(['devices', 'stages'])
  expect(result.devices).toEqual(plan.devices)
  expect(result.stages.map(({ stage }) => stage)).toEqual(programs.wasm!.calls.map(({ stage }) => stage))
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

const ABSENT = { TANDEM_CUDA_LIBRARY: '/nowhere/libtandem-cuda.so' }

test('a plan for a GPU that is not there is printed, with a note', async () => {
  const path = models.path('gpu.gguf')
  await writeFile(path, encodeGguf(tinyGlm4moe({ headDim: 32, layers: 4 })))
  const flags = ['plan', path, '--pipeline', 'hybrid', '--gpu-memory', '1GiB', '--context', '64']
  const { code, stdout, stderr } = await cli([...flags, '--override', 'blk\\.[12]\\..*_exps=wasm'], { env: ABSENT })
  expect(code).toBe(0)
  expect(stdout).toMatch(/\nGPU +absent\nexperts +layers 1-2 on wasm; layers 3 on cuda\n/)
  expect(stdout).toMatch(/\nwasm .*\ncuda:0 .*\n/)
  expect(stdout).toMatch(/\n1-2 +attention +cuda +[\d.]+ kB +F32\n/)
  expect(stderr).toMatch(/^note: this plan cannot run here now: .* --pipeline cpu\n$/)
  const json = JSON.parse((await cli([...flags, '--no-overlap', '--gpu-layers', '0', '--json'], { env: ABSENT })).stdout) as {
    devices: { id: string }[]
    stages: { stage: string; layer: number | null; executor: string }[]
  }
  expect(json.devices.map(({ id }) => id)).toEqual(['wasm', 'cuda:0'])
  expect(json.stages.filter(({ layer }) => layer === 1).map(({ stage, executor }) => `${stage} ${executor}`)).toEqual([
    'attention cuda',
    'router cuda',
    'publish cuda',
    'routedExperts wasm',
    'awaitRouted cuda',
    'sharedExperts cuda',
    'combine cuda',
  ])
})

test.each([
  [['--gpu-memory', 'much'], /--gpu-memory/],
  [['--gpu-layers', '-1'], /--gpu-layers/],
  [['--override', '_exps=gpu'], /--override/],
  [['--override', 'nothing=wasm'], /ERR_ARGUMENT: override 'nothing' matches/],
])('%o is wrong usage', async (flags, message) => {
  const { code, stderr } = await cli(['plan', models.tiny, ...flags])
  expect(code).toBe(2)
  expect(stderr).toMatch(message)
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
  const half = Math.ceil((plan.wasm!.arena.end + plan.wasm!.arenas[0]!) / 2)
  const limits = ['--context', '32', '--ubatch', '4', '--arena-bytes']
  expect((await cli(['plan', models.tiny, ...limits, `${half}`])).stdout).toMatch(/\narenas +[2-9]\n/)
  expect((await cli(['plan', models.tiny, ...limits, '70000'])).stderr).toMatch(/^error ERR_ARENA_LIMIT: /)
})
