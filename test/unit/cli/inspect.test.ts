import { writeFile } from 'node:fs/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { encodeGguf, text, tinyGlm4moe } from '../../fixtures/build-gguf.ts'
import { cli, cliModels } from './cli-process.ts'

let models: Awaited<ReturnType<typeof cliModels>>
beforeAll(async () => {
  models = await cliModels()
})
afterAll(() => models[Symbol.asyncDispose]())

test('--json is the whole table', async () => {
  const { code, stdout, stderr } = await cli(['inspect', models.tiny, '--json'])
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  const result = JSON.parse(stdout) as Record<string, unknown>
  expect(result).toMatchObject({ architecture: 'glm4moe', name: 'tiny', hyperparameters: { hidden: 32, experts: 4 } })
  expect(result['tensors']).toHaveLength(tinyGlm4moe().tensors.size)
})

test('a person sees sections', async () => {
  const { stdout } = await cli(['inspect', models.tiny])
  expect(stdout).toMatch(/^"tiny": glm4moe, GGUF version 3, 1 file, [\d.]+ kB\n/)
  expect(stdout).toMatch(/\nHyperparameters\n[^]*\nMetadata\n[^]*\nTensors\n/)
  expect(stdout).toMatch(/\ntokenizer\.ggml\.tokens +\[.*\] 300 in all\n/)
  expect(stdout).toMatch(/\nblk\.1\.ffn_up_exps\.weight +F32 +32 x 32 x 4 +16\.4 kB\n/)
})

test('a model that cannot be run can be looked at', async () => {
  const spec = tinyGlm4moe()
  spec.metadata.set('general.architecture', text('gpt9'))
  await writeFile(models.path('gpt9.gguf'), encodeGguf(spec))
  const { code, stdout, stderr } = await cli(['inspect', models.path('gpt9.gguf'), '--json'])
  expect({ code, ...(JSON.parse(stdout) as object) }).toMatchObject({ code: 0, architecture: 'gpt9', hyperparameters: null })
  expect(stderr).toMatch(/^note: this model cannot be run\. ERR_ARCH_UNKNOWN: .*\n$/)
})

test('--machine shows what there is to run on', async () => {
  const { code, stdout } = await cli(['inspect', '--machine', '--json'])
  expect({ code, ...(JSON.parse(stdout) as object) }).toMatchObject({ code: 0, node: process.versions.node, executors: ['wasm'] })
  expect((await cli(['inspect', '--machine'])).stdout).toMatch(/\nkernels +(dot|relaxed|simd)\n/)
})
