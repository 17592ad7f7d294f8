/** Everything that is worth showing about a model file, as plain data for JSON. */
import { basename } from 'node:path'
import type { FormatName } from '../abi/formats.ts'
import type { Metadata, MetadataValue, ModelFile, TensorInfo } from '../gguf/types.ts'
import type { Hyperparameters, Model } from './types.ts'

/** A metadata value that survives `JSON.stringify`. Large integers and non-finite numbers become text, long arrays an `Excerpt`. */
export type PlainValue = string | number | boolean | readonly PlainValue[] | Excerpt

/** A long array, abbreviated. */
export interface Excerpt {
  readonly length: number
  readonly first: readonly PlainValue[]
}

/** A share of the model. */
export interface Share {
  readonly tensors: number
  readonly parameters: number
  readonly bytes: number
}

/** What `inspectModel` returns. */
export interface Inspection {
  readonly paths: readonly string[]
  readonly ggufVersion: number
  /** Size of all files. */
  readonly bytes: number
  readonly architecture: string | null
  readonly name: string
  /** Present when the architecture is one that Tandem knows. */
  readonly hyperparameters: Hyperparameters | null
  readonly total: Share
  readonly experts: Share
  /** The routed experts' part of all tensor bytes, 0 to 1. */
  readonly expertsShare: number
  /** Most bytes first. */
  readonly formats: readonly (Share & { readonly format: FormatName })[]
  readonly metadata: Readonly<Record<string, PlainValue>>
  /** In the order of the files; `shape` has the contiguous dimension first; `shard` counts from 0. */
  readonly tensors: readonly {
    readonly name: string
    readonly format: FormatName
    readonly shape: readonly number[]
    readonly bytes: number
    readonly shard: number
  }[]
}

/** Arrays up to this length are shown whole. */
const SHOWN_ITEMS = 8

/** Tensors that hold one matrix per routed expert. */
const EXPERT_TENSOR = /\.ffn_(gate|up|down|gate_up)_exps\./

/** Summarises a model file; `model` adds the hyperparameters. Works for any architecture. Pure. */
export function inspectModel(file: ModelFile, model?: Model): Inspection {
  const tensors = [...file.tensors.values()]
  const total = share(tensors)
  const experts = share(tensors.filter((tensor) => EXPERT_TENSOR.test(tensor.name)))
  const formats = [...new Set(tensors.map((tensor) => tensor.format))]
  const architecture = file.metadata.get('general.architecture')
  const name = file.metadata.get('general.name')
  return {
    paths: file.paths,
    ggufVersion: file.version,
    bytes: file.bytes,
    architecture: typeof architecture === 'string' ? architecture : null,
    name: typeof name === 'string' && name !== '' ? name : basename(file.paths[0] ?? '', '.gguf'),
    hyperparameters: model?.hyper ?? null,
    total,
    experts,
    expertsShare: total.bytes === 0 ? 0 : experts.bytes / total.bytes,
    formats: formats
      .map((format) => ({ format, ...share(tensors.filter((tensor) => tensor.format === format)) }))
      .sort((a, b) => b.bytes - a.bytes),
    metadata: plainMetadata(file.metadata),
    tensors: tensors.map(({ name: tensor, format, shape, bytes, shard }) => ({ name: tensor, format, shape, bytes, shard })),
  }
}

function share(tensors: readonly TensorInfo[]): Share {
  return {
    tensors: tensors.length,
    parameters: tensors.reduce((sum, tensor) => sum + tensor.shape.reduce((product, length) => product * length, 1), 0),
    bytes: tensors.reduce((sum, tensor) => sum + tensor.bytes, 0),
  }
}

function plainMetadata(metadata: Metadata): Record<string, PlainValue> {
  // `fromEntries` defines own properties, so that a key `__proto__` from the file is a key like any other.
  return Object.fromEntries([...metadata].map(([key, value]) => [key, plain(value)]))
}

function plain(value: MetadataValue): PlainValue {
  if (Array.isArray(value)) {
    const items = value as readonly MetadataValue[]
    const first = items.slice(0, SHOWN_ITEMS).map(plain)
    return items.length <= SHOWN_ITEMS ? first : { length: items.length, first }
  }
  if (typeof value === 'bigint') return value.toString()
  if (typeof value === 'number' && !Number.isFinite(value)) return String(value)
  return value as string | number | boolean
}
