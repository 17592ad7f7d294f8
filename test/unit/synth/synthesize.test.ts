import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { FORMATS } from '../../../src/abi/formats.ts'
import type { FormatName } from '../../../src/abi/formats.ts'
import { openModelFile } from '../../../src/gguf/open.ts'
import { tensorBytes } from '../../../src/gguf/write.ts'
import { describeModel } from '../../../src/model/describe.ts'
import { fallbacksOf, fittingFormat, glm4moeTensors } from '../../../src/synth/glm4moe.ts'
import { PRESETS, presetShape } from '../../../src/synth/presets.ts'
import type { PresetName } from '../../../src/synth/presets.ts'
import { synthesize, tensorData } from '../../../src/synth/synthesize.ts'
import { dequantize } from '../../fixtures/dequantize.ts'
import { temporaryDirectory } from '../../fixtures/build-gguf.ts'

let directory: Awaited<ReturnType<typeof temporaryDirectory>>
beforeAll(async () => {
  directory = await temporaryDirectory()
})
afterAll(() => directory[Symbol.asyncDispose]())

const digest = async (path: string): Promise<string> =>
  createHash('sha256')
    .update(await readFile(path))
    .digest('hex')

test.each(Object.keys(FORMATS) as FormatName[])('a micro model in %s is complete', async (format) => {
  const output = join(directory.path, `${format}.gguf`)
  const result = await synthesize({ preset: 'micro', format, expertFormat: format, output })
  const model = describeModel(await openModelFile(output))
  expect(result).toMatchObject({ bytes: (await stat(output)).size, tensors: model.file.tensors.size, fallbacks: [] })
  expect(model.layers[1]!.routed!.down.tensor.format).toBe(format)
  expect(model.layers[1]!.attention.q.tensor.format).toBe(format)
  expect(model.layers[1]!.router!.gate.tensor.format).toBe('F32')
})

test('the seed decides the bytes', async () => {
  const paths = ['a', 'b', 'c'].map((name) => join(directory.path, `${name}.gguf`))
  for (const [index, output] of paths.entries()) await synthesize({ preset: 'micro', seed: index === 2 ? 8 : 7, output })
  const [a, b, c] = await Promise.all(paths.map(digest))
  expect(a).toBe(b)
  expect(a).not.toBe(c)
})

test('layers can be set', async () => {
  const output = join(directory.path, 'layers.gguf')
  await synthesize({ preset: 'micro', layers: 5, output })
  expect(describeModel(await openModelFile(output)).layers).toHaveLength(5)
})

test('progress ends at the size of the file', async () => {
  const output = join(directory.path, 'progress.gguf')
  const seen: { done: number; total: number; phase: string; unit: string }[] = []
  const { bytes } = await synthesize({ preset: 'micro', output, onProgress: (progress) => seen.push(progress) })
  expect(seen.at(-1)).toEqual({ phase: 'write', done: bytes, total: bytes, unit: 'bytes' })
  expect(seen.every((progress, index) => index === 0 || progress.done > seen[index - 1]!.done)).toBe(true)
})

test('aborting leaves nothing behind', async () => {
  const controller = new AbortController()
  const output = join(directory.path, 'aborted.gguf')
  const running = synthesize({ preset: 'micro', output, signal: controller.signal, onProgress: () => controller.abort() })
  await expect(running).rejects.toMatchObject({ code: 'ERR_ABORTED' })
  expect(existsSync(output) || existsSync(`${output}.partial`)).toBe(false)
})

describe('refused:', () => {
  const output = '/nonexistent/x.gguf'
  test.each([
    ['an unknown preset', { preset: 'huge' as PresetName, output }, 'ERR_ARGUMENT'],
    ['an inherited name as preset', { preset: 'toString' as PresetName, output }, 'ERR_ARGUMENT'],
    ['an unknown format', { preset: 'micro' as const, format: 'Q1_0' as FormatName, output }, 'ERR_ARGUMENT'],
    ['an unknown architecture', { preset: 'micro' as const, architecture: 'gpt9' as 'glm4moe', output }, 'ERR_ARGUMENT'],
    ['dense layers alone', { preset: 'micro' as const, layers: 1, output }, 'ERR_ARGUMENT'],
    ['half a layer', { preset: 'micro' as const, layers: 2.5, output }, 'ERR_ARGUMENT'],
    ['a seed that is no whole number', { preset: 'micro' as const, seed: 0.5, output }, 'ERR_ARGUMENT'],
    ['a directory that is not there', { preset: 'micro' as const, output }, 'ERR_FILE_ACCESS'],
  ])('%s', async (_, options, code) => {
    await expect(synthesize(options)).rejects.toMatchObject({ code })
  })
})

test('a format whose blocks do not fit is replaced, and the result says so', () => {
  expect([fittingFormat('Q4_K', 1408), fittingFormat('Q5_K', 1408), fittingFormat('Q6_K', 1408)]).toEqual(['Q5_0', 'Q8_0', 'Q8_0'])
  expect([fittingFormat('Q4_K', 4096), fittingFormat('Q4_0', 1408), fittingFormat('Q4_0', 40)]).toEqual(['Q4_K', 'Q4_0', 'F16'])
  const air = glm4moeTensors(presetShape('glm-4.5-air', 2), 'Q8_0', 'Q4_K')
  const formats = air.filter((tensor) => tensor.name.includes('_exps')).map(({ name, format }) => [name, format])
  expect(formats).toEqual([
    ['blk.1.ffn_gate_exps.weight', 'Q4_K'],
    ['blk.1.ffn_up_exps.weight', 'Q4_K'],
    ['blk.1.ffn_down_exps.weight', 'Q5_0'],
  ])
  expect(fallbacksOf(air, 'Q8_0', 'Q4_K')).toEqual([{ from: 'Q4_K', to: 'Q5_0', columns: 1408, tensors: 1 }])
  expect(fallbacksOf(glm4moeTensors(presetShape('glm-4.5-air', 2), 'Q8_0', 'Q4_0'), 'Q8_0', 'Q4_0')).toEqual([])
  // The dense layer's down matrix has 10,944 columns, the shared expert's 1,408.
  const both = glm4moeTensors(presetShape('glm-4.5-air', 3), 'Q6_K', 'Q6_K')
  expect(fallbacksOf(both, 'Q6_K', 'Q6_K')).toEqual([
    { from: 'Q6_K', to: 'Q8_0', columns: 10_944, tensors: 1 },
    { from: 'Q6_K', to: 'Q8_0', columns: 1408, tensors: 4 },
  ])
})

test.each([
  ['glm-4.5-air', 106, 128],
  ['glm-4.7', 353, 160],
  ['mid', 3.77, 64],
] as const)('%s has its published size of %d G parameters', (preset, billions, experts) => {
  const tensors = glm4moeTensors(PRESETS[preset], 'F32', 'F32')
  const parameters = tensors.reduce((sum, tensor) => sum + tensorBytes(tensor) / 4, 0)
  expect(parameters / 1e9).toBeGreaterThan(billions * 0.99)
  expect(parameters / 1e9).toBeLessThan(billions * 1.01)
  expect(tensors.find((tensor) => tensor.name.includes('exps'))!.shape[2]).toBe(experts)
})

test('pieces of a large tensor differ, and a vector keeps its mean', () => {
  const tensor = { name: 'big', format: 'Q4_0' as const, shape: [2048, 1536], mean: 0, deviation: 1 }
  const pieces = [...tensorData(tensor, 0)].length
  expect(pieces).toBe(3)
  const digests = [...digestsOf(tensor)]
  expect(new Set(digests).size).toBe(3)
  const norm = { name: 'norm', format: 'F32' as const, shape: [4097], mean: 1, deviation: 0.1 }
  const values = dequantize('F32', Buffer.concat([...tensorData(norm, 0)]))
  expect(values).toHaveLength(4097)
  expect(values.reduce((sum, value) => sum + value, 0) / 4097).toBeCloseTo(1, 1)
})

function* digestsOf(tensor: Parameters<typeof tensorData>[0]): Generator<string> {
  for (const piece of tensorData(tensor, 0)) yield createHash('sha256').update(piece).digest('hex')
}
