import { describe, expect, test } from 'vitest'
import type { MetadataValue } from '../../../src/gguf/types.ts'
import { glm4moe } from '../../../src/model/glm4moe.ts'
import { readHyperparameters } from '../../../src/model/hyperparameters.ts'
import { tinyGlm4moe } from '../../fixtures/build-gguf.ts'
import { modelFile } from '../../fixtures/model-file.ts'

/** Reads the tiny model's hyperparameters with some keys changed; undefined removes a key. Keys are without the prefix `glm4moe.`. */
function read(changes: Record<string, MetadataValue | undefined> = {}, rows = 300) {
  const file = modelFile(tinyGlm4moe())
  const metadata = new Map(file.metadata)
  for (const [key, value] of Object.entries(changes)) {
    const full = key.startsWith('tokenizer.') ? key : `glm4moe.${key}`
    if (value === undefined) metadata.delete(full)
    else metadata.set(full, value)
  }
  return readHyperparameters({ ...file, metadata }, glm4moe, rows)
}

test('all keys', () => {
  expect(read()).toEqual({
    vocabulary: 300,
    hidden: 32,
    layers: 2,
    denseLayers: 1,
    contextTokens: 256,
    heads: 4,
    kvHeads: 2,
    headDim: 16,
    rotary: 8,
    ropeBase: 10_000,
    ropeScaling: { type: 'none' },
    epsilon: 1e-5,
    ffnDense: 48,
    ffnExpert: 32,
    ffnShared: 32,
    experts: 4,
    expertsUsed: 2,
    gating: 'sigmoid',
    normalizeWeights: true,
    weightsScale: 1,
  })
})

test.each([
  ['rope over half of the head', { 'rope.dimension_count': undefined }, { rotary: 8 }],
  ['hidden / heads for each head', { 'attention.key_length': undefined, 'attention.value_length': undefined }, { headDim: 8 }],
  ['as many KV heads as heads', { 'attention.head_count_kv': undefined }, { kvHeads: 4 }],
  ['rope base 10,000', { 'rope.freq_base': undefined }, { ropeBase: 10_000 }],
  ['a sigmoid router', { expert_gating_func: undefined }, { gating: 'sigmoid' }],
  ['a sigmoid router for 0', { expert_gating_func: 0 }, { gating: 'sigmoid' }],
  ['a scale of 1', { expert_weights_scale: undefined }, { weightsScale: 1 }],
  ['a scale of 1 for 0', { expert_weights_scale: 0 }, { weightsScale: 1 }],
  ['weights as they are', { expert_weights_norm: undefined }, { normalizeWeights: false }],
  ['no dense layers', { leading_dense_block_count: undefined, feed_forward_length: undefined }, { denseLayers: 0, ffnDense: 0 }],
])('default: %s', (_, changes, expected) => {
  expect(read(changes)).toMatchObject(expected)
})

test.each([
  ['softmax', { expert_gating_func: 1 }, { gating: 'softmax' }],
  ['two shared experts', { expert_shared_count: 2 }, { ffnShared: 64 }],
  ['KV heads per layer, all equal', { 'attention.head_count_kv': [2, 2] }, { kvHeads: 2 }],
  ['nextn layers', { nextn_predict_layers: 1 }, { layers: 1 }],
  ['linear rope', { 'rope.scaling.type': 'linear', 'rope.scaling.factor': 4 }, { ropeScaling: { type: 'linear', factor: 4 } }],
  ['linear rope by its older key', { 'rope.scale_linear': 2 }, { ropeScaling: { type: 'linear', factor: 2 } }],
  ['a factor without a type', { 'rope.scaling.factor': 8 }, { ropeScaling: { type: 'linear', factor: 8 } }],
  ['no scaling in spite of a factor', { 'rope.scaling.type': 'none', 'rope.scaling.factor': 8 }, { ropeScaling: { type: 'none' } }],
])('%s', (_, changes, expected) => {
  expect(read(changes)).toMatchObject(expected)
})

describe('refused, naming the key:', () => {
  test.each<[key: string, value: MetadataValue | undefined]>([
    ['block_count', undefined],
    ['block_count', 0],
    ['block_count', 2.5],
    ['block_count', 'two'],
    ['block_count', 1_000_000],
    ['block_count', 2n ** 60n],
    ['embedding_length', undefined],
    ['embedding_length', -1],
    ['context_length', undefined],
    ['context_length', 0],
    ['attention.head_count', 0],
    ['attention.head_count_kv', 3],
    ['attention.head_count_kv', 8],
    ['attention.head_count_kv', [2, 4]],
    ['attention.head_count_kv', []],
    ['attention.head_count_kv', ['2', '2']],
    ['attention.key_length', 0],
    ['attention.value_length', 32],
    ['attention.layer_norm_rms_epsilon', undefined],
    ['attention.layer_norm_rms_epsilon', 0],
    ['attention.layer_norm_rms_epsilon', Number.NaN],
    ['attention.layer_norm_rms_epsilon', Number.POSITIVE_INFINITY],
    ['rope.dimension_count', 7],
    ['rope.dimension_count', 0],
    ['rope.dimension_count', 18],
    ['rope.freq_base', 0],
    ['rope.freq_base', Number.NaN],
    ['rope.scaling.type', 'yarn'],
    ['rope.scaling.type', 3],
    ['rope.scaling.factor', Number.NaN],
    ['feed_forward_length', undefined],
    ['expert_count', 0],
    ['expert_used_count', 5],
    ['expert_used_count', 0],
    ['expert_feed_forward_length', undefined],
    ['expert_group_count', 2],
    ['expert_gating_func', 3],
    ['expert_weights_scale', Number.POSITIVE_INFINITY],
    ['expert_weights_norm', 1],
    ['leading_dense_block_count', 3],
    ['nextn_predict_layers', 2],
  ])('%s = %s', (key, value) => {
    expect(() => read({ [key]: value })).toThrow(
      expect.objectContaining({ code: 'ERR_HPARAMS_INVALID', message: expect.stringContaining(`glm4moe.${key}`) }),
    )
  })

  test('linear scaling without a factor', () => {
    expect(() => read({ 'rope.scaling.type': 'linear' })).toThrow(/rope\.scaling\.factor/)
  })

  test('a vocabulary that differs from the embedding', () => {
    expect(() => read({}, 301)).toThrow(/tokenizer\.ggml\.tokens lists 300 tokens, but token_embd\.weight has 301 rows/)
    expect(() => read({ 'tokenizer.ggml.tokens': undefined, vocab_size: 5 })).toThrow(/glm4moe\.vocab_size lists 5/)
    expect(read({ 'tokenizer.ggml.tokens': undefined })).toMatchObject({ vocabulary: 300 })
  })
})
