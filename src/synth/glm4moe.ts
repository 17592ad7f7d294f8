/** The metadata and the tensors of a glm4moe model of a given shape, as real converters write them. */
import { FORMATS } from '../abi/formats.ts'
import type { FormatName } from '../abi/formats.ts'
import type { TensorHeader, TypedMetadata, TypedValue } from '../gguf/write.ts'
import type { Glm4moeShape } from './presets.ts'
import { vocabularyMetadata } from './vocabulary.ts'

/** A tensor to generate: values around `mean` with the standard deviation `deviation`. */
export interface SynthTensor extends TensorHeader {
  readonly mean: number
  readonly deviation: number
}

/** A format that was asked for and could not be used, because rows of `columns` elements are no whole number of its blocks. */
export interface Fallback {
  readonly from: FormatName
  readonly to: FormatName
  readonly columns: number
  readonly tensors: number
}

/** What is written instead of a format whose blocks do not fit: what llama.cpp takes, where Tandem reads that, else Q8_0. F16 fits always. */
const SMALLER_BLOCKS: Partial<Record<FormatName, FormatName>> = {
  Q2_K: 'IQ4_NL',
  Q3_K: 'IQ4_NL',
  IQ4_XS: 'IQ4_NL',
  Q4_K: 'Q5_0',
  Q5_K: 'Q8_0',
  Q6_K: 'Q8_0',
}

/** `general.file_type` by the experts' format. Source: enum llama_ftype in https://github.com/ggml-org/llama.cpp/blob/master/include/llama.h */
const FILE_TYPES: Readonly<Record<FormatName, number>> = {
  F32: 0,
  F16: 1,
  Q4_0: 2,
  Q4_1: 3,
  Q8_0: 7,
  Q5_0: 8,
  Q5_1: 9,
  Q2_K: 10,
  Q3_K: 12,
  Q4_K: 14,
  Q5_K: 16,
  Q6_K: 18,
  IQ4_NL: 25,
  IQ4_XS: 30,
  BF16: 32,
  MXFP4: 38,
}

/** The format to use for rows of `columns` elements. */
export function fittingFormat(format: FormatName, columns: number): FormatName {
  if (columns % FORMATS[format].blockElements === 0) return format
  return fittingFormat(SMALLER_BLOCKS[format] ?? 'F16', columns)
}

/** The formats that did not fit, by what was asked for and the length of the rows. */
export function fallbacksOf(tensors: readonly SynthTensor[], format: FormatName, expertFormat: FormatName): Fallback[] {
  const groups = new Map<string, Fallback>()
  for (const tensor of tensors) {
    const columns = tensor.shape[0]!
    const isExpert = tensor.name.includes('_exps.')
    const from = isExpert ? expertFormat : format
    if (tensor.shape.length === 1 || tensor.name.includes('ffn_gate_inp') || tensor.format === from) continue
    const key = `${from}/${columns}`
    groups.set(key, { from, to: fittingFormat(from, columns), columns, tensors: (groups.get(key)?.tensors ?? 0) + 1 })
  }
  return [...groups.values()]
}

/** Metadata in the order of real files. */
export function glm4moeMetadata(shape: Glm4moeShape, name: string, expertFormat: FormatName): TypedMetadata {
  const u32 = (value: number): TypedValue => ({ type: 'u32', value })
  const f32 = (value: number): TypedValue => ({ type: 'f32', value })
  const text = (value: string): TypedValue => ({ type: 'string', value })
  return new Map<string, TypedValue>([
    ['general.architecture', text('glm4moe')],
    ['general.type', text('model')],
    ['general.name', text(name)],
    ['general.description', text('Random weights of a real shape, made by tandem synth: for measuring, not for text.')],
    ['general.file_type', u32(FILE_TYPES[expertFormat])],
    ['general.quantization_version', u32(2)],
    ['glm4moe.block_count', u32(shape.layers)],
    ['glm4moe.context_length', u32(shape.contextTokens)],
    ['glm4moe.embedding_length', u32(shape.hidden)],
    ['glm4moe.feed_forward_length', u32(shape.ffnDense)],
    ['glm4moe.attention.head_count', u32(shape.heads)],
    ['glm4moe.attention.head_count_kv', u32(shape.kvHeads)],
    ['glm4moe.attention.key_length', u32(shape.headDim)],
    ['glm4moe.attention.value_length', u32(shape.headDim)],
    ['glm4moe.attention.layer_norm_rms_epsilon', f32(1e-5)],
    ['glm4moe.rope.freq_base', f32(shape.ropeBase)],
    ['glm4moe.rope.dimension_count', u32(shape.rotary)],
    ['glm4moe.expert_count', u32(shape.experts)],
    ['glm4moe.expert_used_count', u32(shape.expertsUsed)],
    ['glm4moe.expert_feed_forward_length', u32(shape.ffnExpert)],
    ['glm4moe.expert_shared_count', u32(shape.sharedExperts)],
    ['glm4moe.expert_gating_func', u32(2)],
    ['glm4moe.expert_weights_scale', f32(shape.weightsScale)],
    ['glm4moe.expert_weights_norm', { type: 'bool', value: true }],
    ['glm4moe.leading_dense_block_count', u32(shape.denseLayers)],
    ['glm4moe.vocab_size', u32(shape.vocabulary)],
    ...vocabularyMetadata(shape.vocabulary),
  ])
}

/**
 * All tensors in file order. A matrix's deviation is 1/sqrt(columns), which keeps the size of what passes through it; the embedding's is
 * 1, so that later layers still know the token; the router's is twice and the head's four times as large, so that choices are clear.
 */
export function glm4moeTensors(shape: Glm4moeShape, format: FormatName, expertFormat: FormatName): SynthTensor[] {
  const { hidden } = shape
  const matrix = (name: string, columns: number, rows: number, gain = 1): SynthTensor => ({
    name: `${name}.weight`,
    format: fittingFormat(format, columns),
    shape: [columns, rows],
    mean: 0,
    deviation: gain / Math.sqrt(columns),
  })
  const layers = Array.from({ length: shape.layers }, (_, index) => layerTensors(shape, index, matrix, expertFormat))
  return [
    matrix('token_embd', hidden, shape.vocabulary, Math.sqrt(hidden)),
    ...layers.flat(),
    vector('output_norm.weight', hidden, 1),
    matrix('output', hidden, shape.vocabulary, 4),
  ]
}

function layerTensors(
  shape: Glm4moeShape,
  index: number,
  matrix: (name: string, columns: number, rows: number) => SynthTensor,
  expertFormat: FormatName,
): SynthTensor[] {
  const { hidden, ffnExpert, experts } = shape
  const block = `blk.${index}`
  const queries = shape.heads * shape.headDim
  const keys = shape.kvHeads * shape.headDim
  const gatedNetwork = (suffix: string, width: number): SynthTensor[] => [
    matrix(`${block}.ffn_gate${suffix}`, hidden, width),
    matrix(`${block}.ffn_up${suffix}`, hidden, width),
    matrix(`${block}.ffn_down${suffix}`, width, hidden),
  ]
  const expertMatrix = (part: string, columns: number, rows: number): SynthTensor => ({
    name: `${block}.ffn_${part}_exps.weight`,
    format: fittingFormat(expertFormat, columns),
    shape: [columns, rows, experts],
    mean: 0,
    deviation: 1 / Math.sqrt(columns),
  })
  const headNorms = [vector(`${block}.attn_q_norm.weight`, shape.headDim, 1), vector(`${block}.attn_k_norm.weight`, shape.headDim, 1)]
  return [
    vector(`${block}.attn_norm.weight`, hidden, 1),
    matrix(`${block}.attn_q`, hidden, queries),
    vector(`${block}.attn_q.bias`, queries, 0),
    matrix(`${block}.attn_k`, hidden, keys),
    vector(`${block}.attn_k.bias`, keys, 0),
    matrix(`${block}.attn_v`, hidden, keys),
    vector(`${block}.attn_v.bias`, keys, 0),
    ...(shape.headNorm ? headNorms : []),
    matrix(`${block}.attn_output`, queries, hidden),
    vector(`${block}.post_attention_norm.weight`, hidden, 1),
    ...(index < shape.denseLayers
      ? gatedNetwork('', shape.ffnDense)
      : [
          {
            name: `${block}.ffn_gate_inp.weight`,
            format: 'F32' as const,
            shape: [hidden, experts],
            mean: 0,
            deviation: 2 / Math.sqrt(hidden),
          },
          { ...vector(`${block}.exp_probs_b.bias`, experts, 0), deviation: 0.02 },
          expertMatrix('gate', hidden, ffnExpert),
          expertMatrix('up', hidden, ffnExpert),
          expertMatrix('down', ffnExpert, hidden),
          ...(shape.sharedExperts > 0 ? gatedNetwork('_shexp', ffnExpert * shape.sharedExperts) : []),
        ]),
  ]
}

function vector(name: string, length: number, mean: number): SynthTensor {
  return { name, format: 'F32', shape: [length], mean, deviation: 0.1 }
}
