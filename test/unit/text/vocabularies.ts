/** Small vocabularies built by hand, as the metadata of a GGUF file would hold them. */
import type { Metadata, MetadataValue } from '../../../src/gguf/types.ts'
import { BYTE_CHARACTERS } from '../../../src/text/byte-level.ts'
import { TOKEN_TYPE } from '../../../src/text/vocabulary.ts'

export type Fields = Readonly<Record<string, MetadataValue | undefined>>

/** Metadata with the given `tokenizer.ggml.*` keys; a key set to `undefined` is left out. */
export function tokenizerMetadata(fields: Fields): Metadata {
  const entries = Object.entries(fields).flatMap(([key, value]) => (value === undefined ? [] : [[`tokenizer.ggml.${key}`, value] as const]))
  return new Map(entries)
}

/** A byte-level vocabulary: all bytes (ids 0 to 255), the merges' results in order, then `<|bos|>`, `<|end|>`, `<think>` and a hole. */
export function byteLevelMetadata(merges: readonly string[] = [], fields: Fields = {}): Metadata {
  const made = merges.map((merge) => merge.replace(' ', ''))
  const tokens = [...BYTE_CHARACTERS, ...made, '<|bos|>', '<|end|>', '<think>', '<|hole|>']
  const count = 256 + made.length
  const types: number[] = tokens.map((_, id) => (id < count ? TOKEN_TYPE.normal : TOKEN_TYPE.control))
  types[count + 2] = TOKEN_TYPE.userDefined
  types[count + 3] = TOKEN_TYPE.unused
  return tokenizerMetadata({
    model: 'gpt2',
    pre: 'gpt-2',
    tokens,
    token_type: types,
    merges,
    bos_token_id: count,
    eos_token_id: count + 1,
    ...fields,
  })
}

/** A SentencePiece vocabulary: `<unk> <s> </s>`, the 256 bytes (ids 3 to 258), then `pieces` with their scores. */
export function sentencePieceMetadata(pieces: Readonly<Record<string, number>>, fields: Fields = {}): Metadata {
  const bytes = Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`)
  const texts = Object.keys(pieces)
  const { unknown, control, byte, normal } = TOKEN_TYPE
  return tokenizerMetadata({
    model: 'llama',
    tokens: ['<unk>', '<s>', '</s>', ...bytes, ...texts],
    token_type: [unknown, control, control, ...bytes.map(() => byte), ...texts.map(() => normal)],
    scores: [0, 0, 0, ...bytes.map(() => 0), ...Object.values(pieces)],
    bos_token_id: 1,
    eos_token_id: 2,
    ...fields,
  })
}
