/** Byte-level BPE: words from the pre-tokenizer, spelled in the byte alphabet, merged by rank. The merging is @huggingface/tokenizers'. */
import * as library from '@huggingface/tokenizers'
import { TandemError } from '../errors.ts'
import { BYTE_CHARACTERS, toByteLevel } from './byte-level.ts'
import { preTokenizer, splitWords } from './pre-tokenizers.ts'
import { isTextToken } from './vocabulary.ts'
import type { Vocabulary } from './vocabulary.ts'

interface BpeModel {
  /** Merges a word as far as it goes. */
  bpe(word: string): string[]
}

// The library's type declarations import without file extensions, so that TypeScript finds only the names, not the classes.
const { BPE } = library as unknown as { readonly BPE: new (config: object) => BpeModel }

/** Appends the ids of ordinary text (no control tokens in it) to `ids`. */
export type TextEncoderFunction = (text: string, ids: number[]) => void

/** Words whose ids are remembered: text repeats itself, and merging is the slow part. */
const CACHED_WORDS = 20_000
/** Longer words hardly ever come back. UTF-16 units. */
const CACHED_WORD_LENGTH = 64

/** An encoder for a byte-level vocabulary. The merge table is built on first use (some 100 ms for 150,000 tokens). */
export function createByteLevelEncoder(vocabulary: Vocabulary): TextEncoderFunction {
  const { patterns, ignoreMerges } = preTokenizer(vocabulary.pre)
  const cache = new Map<string, readonly number[]>()
  let bpe: BpeModel | undefined

  const textToken = (text: string): number | undefined => {
    const id = vocabulary.ids.get(text)
    return id !== undefined && isTextToken(vocabulary.types[id]) ? id : undefined
  }

  const encodeWord = (word: string): readonly number[] => {
    const spelled = toByteLevel(word)
    const whole = ignoreMerges || spelled.length === 1 ? textToken(spelled) : undefined
    if (whole !== undefined) return [whole]
    bpe ??= createBpe(vocabulary)
    return bpe.bpe(spelled).map((piece) => textToken(piece) ?? vocabulary.unknown ?? missing(piece))
  }

  return (text, ids) => {
    for (const word of splitWords(text, patterns)) {
      let found = cache.get(word)
      if (found === undefined) {
        found = encodeWord(word)
        if (word.length <= CACHED_WORD_LENGTH) {
          if (cache.size >= CACHED_WORDS) cache.clear()
          cache.set(word, found)
        }
      }
      for (const id of found) ids.push(id)
    }
  }
}

function createBpe(vocabulary: Vocabulary): BpeModel {
  const merges = vocabulary.merges.map((merge): [string, string] => {
    const space = merge.indexOf(' ', 1)
    return [merge.slice(0, space), merge.slice(space + 1)]
  })
  // Ids are looked up here, so the library needs no vocabulary of its own: its merging works on the text of tokens.
  return new BPE({ type: 'BPE', vocab: {}, merges, ignore_merges: false })
}

/** Every merge makes a known token, so only a lone byte can be missing. */
function missing(piece: string): never {
  const byte = BYTE_CHARACTERS.indexOf(piece).toString(16).padStart(2, '0')
  throw new TandemError('ERR_TOKENIZER_INVALID', `the vocabulary has no token for the byte 0x${byte} and no unknown token`)
}
