import { expect, test } from 'vitest'
import { describeModel } from '../../../src/model/describe.ts'
import { inspectModel } from '../../../src/model/inspect.ts'
import { text, tinyGlm4moe } from '../../fixtures/build-gguf.ts'
import { modelFile } from '../../fixtures/model-file.ts'

test('counts parameters, bytes, formats and the share of the experts', () => {
  const file = modelFile(tinyGlm4moe())
  const inspection = inspectModel(file, describeModel(file))
  const tensors = [...file.tensors.values()]
  const bytes = tensors.reduce((sum, tensor) => sum + tensor.bytes, 0)
  expect(inspection.total).toEqual({ tensors: tensors.length, parameters: bytes / 4, bytes })
  expect(inspection.experts).toEqual({ tensors: 3, parameters: 3 * 32 * 32 * 4, bytes: 3 * 32 * 32 * 4 * 4 })
  expect(inspection.expertsShare).toBeCloseTo(inspection.experts.bytes / bytes, 12)
  expect(inspection.formats).toEqual([{ format: 'F32', ...inspection.total }])
  expect(inspection.hyperparameters).toMatchObject({ experts: 4 })
  expect(inspection.tensors[0]).toEqual({ name: 'token_embd.weight', format: 'F32', shape: [32, 300], bytes: 38_400, shard: 0 })
})

test('long arrays are abbreviated, short ones whole', () => {
  const spec = tinyGlm4moe()
  spec.metadata.set('short', { type: 'array', of: 'u32', value: [1, 2] })
  const { metadata } = inspectModel(modelFile(spec))
  expect(metadata['tokenizer.ggml.tokens']).toMatchObject({ length: 300, first: { length: 8 } })
  expect(metadata['short']).toEqual([1, 2])
})

test('the result survives JSON, whatever the values', () => {
  const spec = tinyGlm4moe()
  spec.metadata.set('big', { type: 'u64', value: 2n ** 64n - 1n })
  spec.metadata.set('nan', { type: 'f32', value: Number.NaN })
  spec.metadata.set('__proto__', text('harmless'))
  const inspection = inspectModel(modelFile(spec))
  expect(JSON.parse(JSON.stringify(inspection))).toEqual(inspection)
  expect(inspection.metadata).toMatchObject({ big: '18446744073709551615', nan: 'NaN' })
})

test('an unknown architecture, or none, can be inspected', () => {
  const spec = tinyGlm4moe()
  spec.metadata.set('general.architecture', text('mamba9'))
  expect(inspectModel(modelFile(spec))).toMatchObject({ architecture: 'mamba9', hyperparameters: null })
  const empty = { paths: ['/a/vocabulary.gguf'], version: 3, metadata: new Map(), tensors: new Map(), bytes: 24 }
  expect(inspectModel(empty)).toMatchObject({ architecture: null, name: 'vocabulary', expertsShare: 0, total: { parameters: 0 } })
})
