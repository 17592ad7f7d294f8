/** Model file -> model: hyperparameters, and for every layer which tensor plays which role. */
import { basename } from 'node:path'
import { TandemError } from '../errors.ts'
import type { ModelFile } from '../gguf/types.ts'
import { architectureOf } from './architectures.ts'
import type { Architecture, TensorNames } from './architecture.ts'
import { readHyperparameters } from './hyperparameters.ts'
import { TensorRoles } from './tensor-roles.ts'
import type { AttentionWeights, FeedForward, Hyperparameters, Layer, Model } from './types.ts'

/**
 * Says what an opened file computes. Pure; reads no tensor data.
 *
 * Throws `ERR_ARCH_UNKNOWN`, `ERR_HPARAMS_INVALID` (with the key), `ERR_TENSOR_MISSING`, `ERR_TENSOR_SHAPE`, `ERR_TENSOR_UNEXPECTED`,
 * and `ERR_FORMAT_UNSUPPORTED` for a quantised norm or bias.
 */
export function describeModel(file: ModelFile): Model {
  const architecture = architectureOf(file)
  const roles = new TensorRoles(file)
  const rows = file.tensors.get('token_embd.weight')?.shape[1]
  if (rows === undefined) {
    throw new TandemError('ERR_TENSOR_MISSING', `${file.paths[0]}: no matrix token_embd.weight in the file; it may hold a vocabulary only`)
  }
  const hyper = readHyperparameters(file, architecture, rows)
  const { hidden, vocabulary } = hyper
  const embedding = roles.matrix('token_embd.weight', { columns: hidden, rows: vocabulary })
  const outputNorm = roles.vector(['output_norm.weight'], hidden)
  const head = roles.has('output.weight') ? roles.matrix('output.weight', { columns: hidden, rows: vocabulary }) : embedding
  const layers = Array.from({ length: hyper.layers }, (_, index) => describeLayer(roles, architecture, hyper, index))
  roles.checkAllUsed((name) => isPastLastLayer(name, hyper.layers))
  return { architecture: architecture.name, name: nameOf(file), file, hyper, embedding, outputNorm, head, layers }
}

function describeLayer(roles: TensorRoles, architecture: Architecture, hyper: Hyperparameters, index: number): Layer {
  const attention = describeAttention(roles, architecture, hyper, index)
  const ffnNorm = roles.vector(inLayer(index, architecture.tensors.ffnNorm), hyper.hidden)
  if (index < hyper.denseLayers) {
    return { index, attention, ffnNorm, dense: describeFeedForward(roles, hyper.hidden, hyper.ffnDense, index, '') }
  }
  const { names, ...presence } = architecture.tensors.selectionBias
  const selectionBias = roles.optionalVector(inLayer(index, names), hyper.experts, presence[hyper.gating])
  const gate = roles.matrix(`blk.${index}.ffn_gate_inp.weight`, { columns: hyper.hidden, rows: hyper.experts })
  return {
    index,
    attention,
    ffnNorm,
    router: { gate, ...(selectionBias === undefined ? {} : { selectionBias }) },
    routed: describeExperts(roles, hyper, index),
    ...(hyper.ffnShared === 0 ? {} : { shared: describeFeedForward(roles, hyper.hidden, hyper.ffnShared, index, '_shexp') }),
  }
}

function describeAttention(roles: TensorRoles, architecture: Architecture, hyper: Hyperparameters, index: number): AttentionWeights {
  const { hidden, headDim } = hyper
  const { attentionNorm, attentionBias, headNorm } = architecture.tensors
  const queries = hyper.heads * headDim
  const keys = hyper.kvHeads * headDim
  const bias = (name: string, length: number) => roles.optionalVector([`blk.${index}.${name}.bias`], length, attentionBias)
  const qNormName = `blk.${index}.attn_q_norm.weight`
  const kNormName = `blk.${index}.attn_k_norm.weight`
  // One without the other is a damaged file, so that the presence of either calls for both.
  const presence = roles.has(qNormName) || roles.has(kNormName) ? 'required' : headNorm
  return defined({
    norm: roles.vector(inLayer(index, attentionNorm), hidden),
    q: roles.matrix(`blk.${index}.attn_q.weight`, { columns: hidden, rows: queries }),
    k: roles.matrix(`blk.${index}.attn_k.weight`, { columns: hidden, rows: keys }),
    v: roles.matrix(`blk.${index}.attn_v.weight`, { columns: hidden, rows: keys }),
    output: roles.matrix(`blk.${index}.attn_output.weight`, { columns: queries, rows: hidden }),
    qBias: bias('attn_q', queries),
    kBias: bias('attn_k', keys),
    vBias: bias('attn_v', keys),
    qNorm: roles.optionalVector([qNormName], headDim, presence),
    kNorm: roles.optionalVector([kNormName], headDim, presence),
  })
}

function describeFeedForward(roles: TensorRoles, hidden: number, width: number, index: number, suffix: string): FeedForward {
  const name = (part: string): string => `blk.${index}.ffn_${part}${suffix}.weight`
  return {
    gate: roles.matrix(name('gate'), { columns: hidden, rows: width }),
    up: roles.matrix(name('up'), { columns: hidden, rows: width }),
    down: roles.matrix(name('down'), { columns: width, rows: hidden }),
  }
}

function describeExperts(roles: TensorRoles, { hidden, ffnExpert, experts }: Hyperparameters, index: number): FeedForward {
  const name = (part: string): string => `blk.${index}.ffn_${part}_exps.weight`
  const down = roles.matrix(name('down'), { columns: ffnExpert, rows: hidden, experts })
  if (roles.has(name('gate_up')) && !roles.has(name('gate'))) {
    // Newer files: per expert, the gate's rows and then the up's, in one tensor.
    const merged = roles.matrix(name('gate_up'), { columns: hidden, rows: 2 * ffnExpert, experts })
    return { gate: { ...merged, rows: ffnExpert }, up: { ...merged, rows: ffnExpert, firstRow: ffnExpert }, down }
  }
  return {
    gate: roles.matrix(name('gate'), { columns: hidden, rows: ffnExpert, experts }),
    up: roles.matrix(name('up'), { columns: hidden, rows: ffnExpert, experts }),
    down,
  }
}

function inLayer(index: number, [first, ...others]: TensorNames): TensorNames {
  return [`blk.${index}.${first}`, ...others.map((name) => `blk.${index}.${name}`)]
}

/** Tensors of the blocks that predict further tokens. */
function isPastLastLayer(name: string, layers: number): boolean {
  const block = /^blk\.(\d+)\./.exec(name)?.[1]
  return block !== undefined && Number(block) >= layers
}

function nameOf(file: ModelFile): string {
  const name = file.metadata.get('general.name')
  return typeof name === 'string' && name !== '' ? name : basename(file.paths[0]!, '.gguf')
}

type Optional<T> = { [K in keyof T]: undefined extends T[K] ? K : never }[keyof T]
type Defined<T> = { [K in Exclude<keyof T, Optional<T>>]: T[K] } & { [K in Optional<T>]?: Exclude<T[K], undefined> }

/** Leaves out the members that are undefined. */
function defined<T extends object>(value: T): Defined<T> {
  return Object.fromEntries(Object.entries(value).filter(([, member]) => member !== undefined)) as Defined<T>
}
