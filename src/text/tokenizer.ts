/** Text to token ids and back, with the vocabulary that the model file carries. */
import { TandemError } from '../errors.ts'
import type { Metadata } from '../gguf/types.ts'
import { createByteLevelEncoder } from './byte-level-bpe.ts'
import { fromByteLevel } from './byte-level.ts'
import { createDetokenizer } from './detokenizer.ts'
import { createSentencePieceEncoder, SPACE_MARK } from './sentencepiece.ts'
import { createTokenFinder } from './token-finder.ts'
import type { Fragment } from './token-finder.ts'
import type { Tokenizer } from './types.ts'
import { isTextToken, readVocabulary, TOKEN_TYPE } from './vocabulary.ts'
import type { Vocabulary } from './vocabulary.ts'

export type { Tokenizer } from './types.ts'

const utf8 = new TextEncoder()
const display = new TextDecoder('utf-8', { ignoreBOM: true })

/**
 * Builds the tokenizer from a file's metadata (`tokenizer.ggml.*`).
 * Throws `ERR_TOKENIZER_UNSUPPORTED` (vocabulary kind or pre-tokenizer) and `ERR_TOKENIZER_INVALID` (inconsistent vocabulary).
 */
export function createTokenizer(metadata: Metadata): Tokenizer {
  const vocabulary = readVocabulary(metadata)
  const { tokens, types, bos, eos, addSpacePrefix } = vocabulary
  const encodeText = vocabulary.kind === 'gpt2' ? createByteLevelEncoder(vocabulary) : createSentencePieceEncoder(vocabulary)
  const findAdded = lazy(() => createTokenFinder(addedTokens(vocabulary, false)))
  const findSpecial = lazy(() => createTokenFinder(addedTokens(vocabulary, true)))
  const bytes: (Uint8Array | undefined)[] = []

  const check = (id: number): void => {
    if (Number.isInteger(id) && id >= 0 && id < tokens.length) return
    throw new TandemError('ERR_TOKEN_RANGE', `token id ${id} is not in the vocabulary of ${tokens.length} tokens`)
  }

  const tokenizer: Tokenizer = {
    vocabulary: tokens.length,
    bos,
    eos,
    endOfGeneration: vocabulary.endOfGeneration,
    addBos: vocabulary.addBos,
    addSpacePrefix,

    encode(text, { addSpecial = true, parseSpecial = false } = {}) {
      const ids: number[] = []
      if (addSpecial && vocabulary.addBos && bos !== undefined) ids.push(bos)
      let isAtStart = true // of the text, or behind a token that the text was cut at
      for (const fragment of (parseSpecial ? findSpecial : findAdded)()(text.toWellFormed())) {
        if (typeof fragment === 'number') ids.push(fragment)
        else encodeText(addSpacePrefix && isAtStart ? ` ${fragment}` : fragment, ids)
        isAtStart = typeof fragment === 'number'
      }
      if (addSpecial && vocabulary.addEos && eos !== undefined) ids.push(eos)
      return ids
    },

    decode(ids, options) {
      const detokenizer = createDetokenizer(tokenizer, options)
      let text = ''
      for (const id of ids) text += detokenizer.push(id)
      return text + detokenizer.flush()
    },

    tokenBytes(id) {
      check(id)
      return (bytes[id] ??= decodeToken(vocabulary, id))
    },

    tokenText: (id) => display.decode(tokenizer.tokenBytes(id)),

    isControl(id) {
      check(id)
      return !isTextToken(types[id]) && types[id] !== TOKEN_TYPE.byte
    },
  }
  return tokenizer
}

/** Tokens that are looked for in a text before it is encoded. */
function* addedTokens(vocabulary: Vocabulary, parseSpecial: boolean): Generator<readonly [string, number]> {
  for (const [text, id] of vocabulary.ids) {
    const type = vocabulary.types[id]
    const isSpecial = type === TOKEN_TYPE.control || type === TOKEN_TYPE.unknown
    if (type === TOKEN_TYPE.userDefined || (parseSpecial && isSpecial)) yield [text, id]
  }
}

function decodeToken(vocabulary: Vocabulary, id: number): Uint8Array {
  const text = vocabulary.tokens[id] ?? ''
  const type = vocabulary.types[id]
  if (type === TOKEN_TYPE.byte) return Uint8Array.of(Number.parseInt(text.slice(3, 5), 16))
  // Added tokens are written as they are, in no alphabet.
  if (!isTextToken(type) || type === TOKEN_TYPE.userDefined) return utf8.encode(text)
  if (vocabulary.kind === 'llama') return utf8.encode(text.replaceAll(SPACE_MARK, ' '))
  return fromByteLevel(text) ?? utf8.encode(text)
}

function lazy(create: () => (text: string) => Fragment[]): () => (text: string) => Fragment[] {
  let value: ((text: string) => Fragment[]) | undefined
  return () => (value ??= create())
}
