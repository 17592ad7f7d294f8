import { expect, test } from 'vitest'
import { describeModel } from '../../../src/model/describe.ts'
import { f32Tensor, text, tinyGlm4moe, u32 } from '../../fixtures/build-gguf.ts'
import type { GgufSpec } from '../../fixtures/build-gguf.ts'
import { modelFile } from '../../fixtures/model-file.ts'

const describeSpec = (spec: GgufSpec) => describeModel(modelFile(spec))

/** Describes the tiny model after a change, and returns the error. */
function failure(change: (spec: GgufSpec) => void): unknown {
  const spec = tinyGlm4moe()
  change(spec)
  try {
    describeSpec(spec)
    return undefined
  } catch (error) {
    return error
  }
}

function reshape(spec: GgufSpec, name: string, shape: readonly number[]): void {
  spec.tensors.set(
    name,
    f32Tensor(name, shape, () => 0),
  )
}

test('a complete model: dense first, then routed and shared experts', () => {
  const model = describeSpec(tinyGlm4moe())
  expect(model).toMatchObject({ architecture: 'glm4moe', name: 'tiny' })
  expect(model.embedding).toMatchObject({ columns: 32, rows: 300, experts: 1, tensor: { name: 'token_embd.weight' } })
  expect(model.head.tensor.name).toBe('output.weight')
  const [dense, sparse] = model.layers
  expect(dense).toMatchObject({ index: 0, dense: { gate: { columns: 32, rows: 48 }, down: { columns: 48, rows: 32 } } })
  expect(dense).not.toHaveProperty('router')
  expect(sparse).not.toHaveProperty('dense')
  expect(sparse!.ffnNorm.tensor.name).toBe('blk.1.post_attention_norm.weight')
  expect(sparse!.router).toMatchObject({ gate: { columns: 32, rows: 4 }, selectionBias: { length: 4 } })
  expect(sparse!.routed!.up).toMatchObject({ columns: 32, rows: 32, experts: 4, rowsPerExpert: 32, firstRow: 0 })
  expect(sparse!.shared!.gate).toMatchObject({ columns: 32, rows: 32, experts: 1, tensor: { name: 'blk.1.ffn_gate_shexp.weight' } })
  expect(sparse!.attention).toMatchObject({
    q: { columns: 32, rows: 64 },
    k: { rows: 32 },
    output: { columns: 64, rows: 32 },
    qBias: { length: 64 },
    kBias: { length: 32 },
    vBias: { length: 32 },
    qNorm: { length: 16 },
    kNorm: { length: 16 },
  })
})

test('q/k norm and biases may be absent', () => {
  const spec = tinyGlm4moe({ headNorm: false })
  for (const name of [...spec.tensors.keys()]) if (/attn_[qkv]\.bias/.test(name)) spec.tensors.delete(name)
  const { attention } = describeSpec(spec).layers[1]!
  for (const key of ['qNorm', 'kNorm', 'qBias', 'kBias', 'vBias']) expect(attention).not.toHaveProperty(key)
})

test('without output.weight the head is the embedding', () => {
  const spec = tinyGlm4moe()
  spec.tensors.delete('output.weight')
  const model = describeSpec(spec)
  expect(model.head).toBe(model.embedding)
})

test('nextn layers are skipped', () => {
  const spec = tinyGlm4moe({ layers: 3 })
  spec.metadata.set('glm4moe.nextn_predict_layers', u32(1))
  reshape(spec, 'blk.2.nextn.eh_proj.weight', [64, 32])
  spec.tensors.delete('blk.2.attn_q.weight')
  expect(describeSpec(spec)).toMatchObject({ hyper: { layers: 2 }, layers: { length: 2 } })
})

test('merged gate and up: the gate has the first rows of every expert', () => {
  const spec = tinyGlm4moe()
  spec.tensors.delete('blk.1.ffn_gate_exps.weight')
  spec.tensors.delete('blk.1.ffn_up_exps.weight')
  reshape(spec, 'blk.1.ffn_gate_up_exps.weight', [32, 64, 4])
  const { gate, up } = describeSpec(spec).layers[1]!.routed!
  expect(gate).toMatchObject({ rows: 32, rowsPerExpert: 64, firstRow: 0, experts: 4 })
  expect(up).toMatchObject({ rows: 32, rowsPerExpert: 64, firstRow: 32, experts: 4 })
  expect(up.tensor).toBe(gate.tensor)
})

test('the selection bias is also found under its older name', () => {
  const spec = tinyGlm4moe()
  spec.tensors.delete('blk.1.exp_probs_b.bias')
  reshape(spec, 'blk.1.exp_probs_b', [4])
  expect(describeSpec(spec).layers[1]!.router!.selectionBias!.tensor.name).toBe('blk.1.exp_probs_b')
})

test('the selection bias is required with a sigmoid and optional with a softmax', () => {
  const drop = (spec: GgufSpec) => spec.tensors.delete('blk.1.exp_probs_b.bias')
  expect(failure(drop)).toMatchObject({ code: 'ERR_TENSOR_MISSING', message: expect.stringContaining('blk.1.exp_probs_b.bias') })
  expect(
    failure((spec) => {
      drop(spec)
      spec.metadata.set('glm4moe.expert_gating_func', u32(1))
    }),
  ).toBeUndefined()
})

test('a model without shared experts', () => {
  const spec = tinyGlm4moe()
  spec.metadata.set('glm4moe.expert_shared_count', u32(0))
  for (const name of [...spec.tensors.keys()]) if (name.includes('_shexp')) spec.tensors.delete(name)
  expect(describeSpec(spec).layers[1]).not.toHaveProperty('shared')
})

test('one expert may be stored as a plain matrix', () => {
  const spec = tinyGlm4moe({ experts: 1, expertsUsed: 1 })
  for (const part of ['gate', 'up', 'down']) reshape(spec, `blk.1.ffn_${part}_exps.weight`, [32, 32])
  expect(describeSpec(spec).layers[1]!.routed!.down).toMatchObject({ experts: 1, rows: 32 })
})

test('an unknown architecture is named, and the known ones are listed', () => {
  expect(failure((spec) => spec.metadata.set('general.architecture', text('mamba9')))).toMatchObject({
    code: 'ERR_ARCH_UNKNOWN',
    message: expect.stringMatching(/"mamba9".*known: glm4moe/),
  })
  expect(failure((spec) => spec.metadata.delete('general.architecture'))).toMatchObject({ code: 'ERR_HPARAMS_INVALID' })
})

test('every missing tensor is named with its layer', () => {
  const optional = /attn_[qkv]\.bias|^output\.weight/
  for (const name of tinyGlm4moe().tensors.keys()) {
    const error = failure((spec) => spec.tensors.delete(name))
    if (optional.test(name)) expect(error, name).toBeUndefined()
    else expect(error, name).toMatchObject({ code: 'ERR_TENSOR_MISSING', message: expect.stringContaining(name) })
  }
  expect(failure((spec) => spec.tensors.delete('blk.1.attn_q.weight'))).toMatchObject({
    message: expect.stringContaining('blk.1.attn_q.weight of layer 1'),
  })
})

test('every wrong shape is an error with both shapes', () => {
  for (const { name, shape } of tinyGlm4moe().tensors.values()) {
    const wrong = [...shape.slice(0, -1), shape.at(-1)! + 1]
    const error = failure((spec) => reshape(spec, name, wrong))
    // A longer embedding contradicts the token list first.
    const code = name === 'token_embd.weight' ? 'ERR_HPARAMS_INVALID' : 'ERR_TENSOR_SHAPE'
    expect(error, name).toMatchObject({ code })
    if (code === 'ERR_TENSOR_SHAPE') {
      expect(error).toMatchObject({ message: expect.stringContaining(`[${wrong.join(', ')}]`) })
      expect(error).toMatchObject({ message: expect.stringContaining(`[${shape.join(', ')}]`) })
    }
  }
})

test('a quantised norm is refused', () => {
  const error = failure((spec) => {
    const norm = spec.tensors.get('output_norm.weight')!
    spec.tensors.set(norm.name, { ...norm, format: 'Q8_0' })
  })
  expect(error).toMatchObject({ code: 'ERR_FORMAT_UNSUPPORTED', message: expect.stringContaining('output_norm.weight') })
})

test('a tensor that nothing would read is refused', () => {
  expect(failure((spec) => reshape(spec, 'blk.1.attn_output.bias', [32]))).toMatchObject({
    code: 'ERR_TENSOR_UNEXPECTED',
    message: expect.stringContaining('blk.1.attn_output.bias'),
  })
})

test('a vocabulary without tensors is no model', () => {
  expect(failure((spec) => spec.tensors.clear())).toMatchObject({
    code: 'ERR_TENSOR_MISSING',
    message: expect.stringContaining('vocabulary only'),
  })
})
