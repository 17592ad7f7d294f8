/** The vocabulary of a GGUF file, read from its metadata and checked; what the encoders and the decoder share. */
import { TandemError } from '../errors.ts'
import type { Metadata, MetadataValue } from '../gguf/types.ts'
import { endOfGenerationIds } from './end-of-generation.ts'
import { preTokenizer } from './pre-tokenizers.ts'

/** Token types, as GGUF numbers them. */
export const TOKEN_TYPE = { undefined: 0, normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const

/** Vocabulary kinds (`tokenizer.ggml.model`): byte-level BPE, and SentencePiece BPE with scores. */
export type VocabularyKind = 'gpt2' | 'llama'

/** A checked vocabulary. */
export interface Vocabulary {
  readonly kind: VocabularyKind
  /** Name of the pre-tokenizer; byte-level only. */
  readonly pre: string
  readonly tokens: readonly string[]
  /** One of `TOKEN_TYPE` for each token. */
  readonly types: Uint8Array
  /** Every token by its text. */
  readonly ids: ReadonlyMap<string, number>
  /** Byte-level: merges by rank, as `left right`. */
  readonly merges: readonly string[]
  /** SentencePiece: one score for each token; the highest merges first. */
  readonly scores: Float64Array
  readonly bos: number | undefined
  readonly eos: number | undefined
  readonly unknown: number | undefined
  readonly endOfGeneration: ReadonlySet<number>
  readonly addBos: boolean
  readonly addEos: boolean
  /** SentencePiece: a space goes before text that starts the input or follows a control token. */
  readonly addSpacePrefix: boolean
}

const PREFIX = 'tokenizer.ggml.'

const invalid = (message: string): TandemError => new TandemError('ERR_TOKENIZER_INVALID', message)

/** Whether ordinary text may turn into the token: not for control tokens, or a prompt could forge them. */
export const isTextToken = (type: number | undefined): boolean =>
  type === TOKEN_TYPE.normal || type === TOKEN_TYPE.userDefined || type === TOKEN_TYPE.undefined

/**
 * Reads and checks the vocabulary in a file's metadata.
 * Throws `ERR_TOKENIZER_UNSUPPORTED` for a kind or pre-tokenizer that is not known, `ERR_TOKENIZER_INVALID` for one that contradicts itself.
 */
export function readVocabulary(metadata: Metadata): Vocabulary {
  const kind = readKind(metadata)
  const tokens = readArray(metadata, 'tokens', isString, 'strings')
  if (tokens === undefined || tokens.length === 0) throw invalid(`the file has no vocabulary (${PREFIX}tokens)`)
  const ids = indexTokens(tokens)
  const { types, typed } = readTypes(metadata, tokens)
  const isByteLevel = kind === 'gpt2'
  const pre = isByteLevel ? (readScalar(metadata, 'pre', isString, 'a string') ?? 'default') : ''
  const defaults = isByteLevel ? preTokenizer(pre) : { addBos: true }
  const spmDefault = (id: number): number | undefined => (isByteLevel || types[id] !== TOKEN_TYPE.control ? undefined : id)
  const id = (name: string): number | undefined => readId(metadata, `${name}_token_id`, tokens.length)
  const bos = id('bos') ?? spmDefault(1)
  const eos = id('eos') ?? spmDefault(2)
  const unknown = id('unknown') ?? (!isByteLevel && types[0] === TOKEN_TYPE.unknown ? 0 : undefined)
  const endOfGeneration = endOfGenerationIds(ids, [eos, id('eot'), id('eom')], (each) => !typed || (types[each] ?? 0) >= TOKEN_TYPE.control)
  // Files exist in which the end of a turn is typed as ordinary text; it is never meant to be shown or typed.
  for (const each of endOfGeneration) if (!typed || types[each] === TOKEN_TYPE.userDefined) types[each] = TOKEN_TYPE.control
  if (!typed && bos !== undefined) types[bos] = TOKEN_TYPE.control
  return {
    kind,
    pre,
    tokens,
    types,
    ids,
    merges: isByteLevel ? readMerges(metadata, ids, types) : [],
    scores: isByteLevel ? new Float64Array(0) : readScores(metadata, tokens.length),
    bos,
    eos,
    unknown,
    endOfGeneration,
    addBos: readAddSpecial(metadata, 'bos', bos, defaults.addBos),
    addEos: readAddSpecial(metadata, 'eos', eos, false),
    addSpacePrefix: !isByteLevel && (readScalar(metadata, 'add_space_prefix', isBoolean, 'a boolean') ?? true),
  }
}

function readKind(metadata: Metadata): VocabularyKind {
  const kind = readScalar(metadata, 'model', isString, 'a string')
  if (kind === undefined) throw invalid(`the file has no vocabulary (${PREFIX}model)`)
  if (kind === 'gpt2' || kind === 'llama') return kind
  throw new TandemError(
    'ERR_TOKENIZER_UNSUPPORTED',
    `vocabulary kind '${kind}' (${PREFIX}model) is not supported; the known ones are gpt2 (byte-level BPE) and llama (SentencePiece)`,
  )
}

const isString = (value: MetadataValue): value is string => typeof value === 'string'
const isBoolean = (value: MetadataValue): value is boolean => typeof value === 'boolean'
const isNumber = (value: MetadataValue): value is number => typeof value === 'number'

function readScalar<T extends MetadataValue>(
  metadata: Metadata,
  key: string,
  is: (value: MetadataValue) => value is T,
  what: string,
): T | undefined {
  const value = metadata.get(PREFIX + key)
  if (value === undefined || is(value)) return value
  throw invalid(`${PREFIX}${key} is not ${what}`)
}

function readArray<T extends MetadataValue>(
  metadata: Metadata,
  key: string,
  is: (value: MetadataValue) => value is T,
  what: string,
): readonly T[] | undefined {
  const value = metadata.get(PREFIX + key)
  if (value === undefined) return undefined
  if (Array.isArray(value) && value.every(is)) return value
  throw invalid(`${PREFIX}${key} is not an array of ${what}`)
}

function indexTokens(tokens: readonly string[]): Map<string, number> {
  const ids = new Map<string, number>()
  for (const [id, token] of tokens.entries()) {
    if (token === '') continue // never matches anything; some files have them as placeholders
    const other = ids.get(token)
    if (other !== undefined) throw invalid(`token ${id} is the same text as token ${other}: ${JSON.stringify(token)}`)
    ids.set(token, id)
  }
  return ids
}

function readTypes(metadata: Metadata, tokens: readonly string[]): { types: Uint8Array; typed: boolean } {
  const values = readArray(metadata, 'token_type', isNumber, 'numbers')
  if (values === undefined) return { types: new Uint8Array(tokens.length).fill(TOKEN_TYPE.normal), typed: false }
  if (values.length !== tokens.length) throw invalid(`${values.length} token types for ${tokens.length} tokens`)
  for (const [id, type] of values.entries()) {
    if (!Number.isInteger(type) || type < 0 || type > TOKEN_TYPE.byte) throw invalid(`token ${id} has the unknown type ${type}`)
    if (type === TOKEN_TYPE.byte && !/^<0x[0-9A-Fa-f]{2}>$/.test(tokens[id] ?? '')) {
      throw invalid(`token ${id} is typed as a byte but reads ${JSON.stringify(tokens[id])}`)
    }
  }
  return { types: Uint8Array.from(values), typed: true }
}

function readMerges(metadata: Metadata, ids: ReadonlyMap<string, number>, types: Uint8Array): readonly string[] {
  const merges = readArray(metadata, 'merges', isString, 'strings')
  if (merges === undefined) throw invalid(`a byte-level vocabulary needs ${PREFIX}merges`)
  for (const [rank, merge] of merges.entries()) {
    const space = merge.indexOf(' ', 1)
    const left = merge.slice(0, space)
    const right = merge.slice(space + 1)
    const result = ids.get(left + right)
    if (space < 0 || !ids.has(left) || !ids.has(right) || result === undefined || !isTextToken(types[result])) {
      throw invalid(`merge ${rank} (${JSON.stringify(merge)}) names or makes a token that is not in the vocabulary`)
    }
  }
  return merges
}

function readScores(metadata: Metadata, count: number): Float64Array {
  const scores = readArray(metadata, 'scores', isNumber, 'numbers')
  if (scores === undefined) throw invalid(`a SentencePiece vocabulary needs ${PREFIX}scores`)
  if (scores.length !== count) throw invalid(`${scores.length} scores for ${count} tokens`)
  if (scores.some(Number.isNaN)) throw invalid('a token score is NaN')
  return Float64Array.from(scores)
}

function readId(metadata: Metadata, key: string, count: number): number | undefined {
  const id = readScalar(metadata, key, isNumber, 'a number')
  // Converters write -1, as a signed or an unsigned 32-bit number, for "none".
  if (id === undefined || id === -1 || id === 0xffffffff) return undefined
  if (!Number.isInteger(id) || id < 0 || id >= count) throw invalid(`${PREFIX}${key} is ${id}, the vocabulary has ${count} tokens`)
  return id
}

function readAddSpecial(metadata: Metadata, name: 'bos' | 'eos', id: number | undefined, whenSilent: boolean): boolean {
  const said = readScalar(metadata, `add_${name}_token`, isBoolean, 'a boolean')
  if (said === true && id === undefined) throw invalid(`${PREFIX}add_${name}_token is set but there is no ${name} token`)
  return id !== undefined && (said ?? whenSilent)
}
