/** Metadata -> hyperparameters, each one bounded, and all consistent with each other. */
import type { ModelFile } from '../gguf/types.ts'
import type { Architecture } from './architecture.ts'
import { Keys } from './keys.ts'
import type { Hyperparameters, RopeScaling } from './types.ts'

/** Bounds far above any published model and far below where sizes stop being exact. */
const WIDTH = { min: 1, max: 1_048_576 }
const COUNT = { min: 1, max: 65_536 }
const LAYERS = { min: 1, max: 4096 }
const CONTEXT = { min: 1, max: 2 ** 31 - 1 }

/** `expert_gating_func` by value; 3 and 4 belong to architectures that are not here. */
const GATING: Readonly<Record<number, Hyperparameters['gating']>> = { 1: 'softmax', 2: 'sigmoid' }

/** Reads a model's hyperparameters; `vocabulary` is the row count of its embedding. Throws `ERR_HPARAMS_INVALID` naming the key. */
export function readHyperparameters(file: ModelFile, architecture: Architecture, vocabulary: number): Hyperparameters {
  const keys = new Keys(file, architecture.name)
  const blocks = keys.integer('block_count', LAYERS)
  // The last blocks predict further tokens (MTP); they are counted in block_count and do not run.
  const nextn = keys.integer('nextn_predict_layers', { min: 0, max: blocks - 1 }, 0)
  const layers = blocks - nextn
  const hidden = keys.integer('embedding_length', WIDTH)
  const denseLayers = keys.integer('leading_dense_block_count', { min: 0, max: layers }, 0)
  return {
    vocabulary: readVocabulary(file, keys, vocabulary),
    hidden,
    layers,
    denseLayers,
    contextTokens: keys.integer('context_length', CONTEXT),
    ...readAttention(keys, architecture, hidden),
    ropeBase: keys.real('rope.freq_base', { min: 1, max: 1e15 }, 10_000),
    ropeScaling: readScaling(keys),
    epsilon: keys.real('attention.layer_norm_rms_epsilon', { min: Number.MIN_VALUE, max: 1 }),
    ffnDense: denseLayers > 0 ? keys.integer('feed_forward_length', WIDTH) : keys.integer('feed_forward_length', { ...WIDTH, min: 0 }, 0),
    ...readExperts(keys, architecture),
  }
}

function readAttention(keys: Keys, architecture: Architecture, hidden: number) {
  const heads = keys.integer('attention.head_count', COUNT)
  const kvHeads = keys.integer('attention.head_count_kv', { min: 1, max: heads }, heads)
  if (heads % kvHeads !== 0) throw keys.error('attention.head_count_kv', `is ${kvHeads}, which does not divide the ${heads} heads`)
  const headDim = keys.integer('attention.key_length', COUNT, hidden / heads)
  const valueLength = keys.integer('attention.value_length', COUNT, hidden / heads)
  if (valueLength !== headDim) throw keys.error('attention.value_length', `is ${valueLength}, but keys have ${headDim}; both must be equal`)
  const rotary = keys.integer('rope.dimension_count', { min: 2, max: headDim }, headDim * architecture.rope.defaultShare)
  if (rotary % 2 !== 0) throw keys.error('rope.dimension_count', `is ${rotary}, but rope rotates pairs: it must be even`)
  return { heads, kvHeads, headDim, rotary }
}

function readExperts(keys: Keys, architecture: Architecture) {
  const experts = keys.integer('expert_count', COUNT)
  const expertsUsed = keys.integer('expert_used_count', { min: 1, max: experts })
  const ffnExpert = keys.integer('expert_feed_forward_length', WIDTH)
  const sharedCount = keys.integer('expert_shared_count', { min: 0, max: 1024 }, 0)
  const groups = keys.integer('expert_group_count', { min: 0, max: experts }, 0)
  if (groups > 1)
    throw keys.error('expert_group_count', `is ${groups}: choosing experts by groups is not supported for ${architecture.name}`)
  const gatingId = keys.integer('expert_gating_func', { min: 0, max: 1024 }, 0)
  const gating = gatingId === 0 ? architecture.defaultGating : GATING[gatingId]
  if (gating === undefined) throw keys.error('expert_gating_func', `is ${gatingId}; supported are 1 (softmax) and 2 (sigmoid)`)
  const scale = keys.real('expert_weights_scale', { min: 0, max: 1e6 }, 1)
  return {
    experts,
    expertsUsed,
    ffnExpert,
    ffnShared: ffnExpert * sharedCount,
    gating,
    normalizeWeights: keys.boolean('expert_weights_norm', architecture.defaultNormalizeWeights),
    // Converters write 0 for "none".
    weightsScale: scale === 0 ? 1 : scale,
  }
}

function readScaling(keys: Keys): RopeScaling {
  const factor = keys.real('rope.scaling.factor', { min: 0, max: 1e6 }, keys.real('rope.scale_linear', { min: 0, max: 1e6 }, 0))
  const type = keys.text('rope.scaling.type', factor === 0 || factor === 1 ? 'none' : 'linear')
  if (type === 'none') return { type }
  if (type !== 'linear') {
    throw keys.error('rope.scaling.type', `is ${JSON.stringify(type.slice(0, 40))}; supported are "none" and "linear"`)
  }
  if (factor === 0) throw keys.error('rope.scaling.factor', 'is missing or 0, but linear scaling needs it')
  return { type, factor }
}

/** The token list, where there is one, decides how many rows the embedding must have. */
function readVocabulary(file: ModelFile, keys: Keys, rows: number): number {
  const tokens = file.metadata.get('tokenizer.ggml.tokens')
  const listed = Array.isArray(tokens) ? tokens.length : keys.integer('vocab_size', { min: 1, max: 2 ** 31 - 1 }, rows)
  const key = Array.isArray(tokens) ? 'tokenizer.ggml.tokens' : `${keys.prefix}.vocab_size`
  if (listed !== rows) throw keys.mismatch(key, `lists ${listed} tokens, but token_embd.weight has ${rows} rows`)
  return rows
}
