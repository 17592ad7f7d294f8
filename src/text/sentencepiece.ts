/**
 * SentencePiece BPE with scores: of all neighbours that together are a token, the pair with the highest score is merged first, the
 * leftmost of equals; what is left over becomes byte tokens. The original: https://github.com/google/sentencepiece, `bpe_model.cc`.
 */
import { TandemError } from '../errors.ts'
import type { TextEncoderFunction } from './byte-level-bpe.ts'
import { isTextToken } from './vocabulary.ts'
import type { Vocabulary } from './vocabulary.ts'

/** U+2581, which stands for a space in tokens. */
export const SPACE_MARK = '▁'

const utf8 = new TextEncoder()

/** A possible merge: the symbol that starts at `left` with the one behind it, `size` UTF-16 units together. */
interface Candidate {
  readonly left: number
  readonly size: number
  readonly score: number
}

/** An encoder for a SentencePiece vocabulary. The caller adds the space prefix. */
export function createSentencePieceEncoder(vocabulary: Vocabulary): TextEncoderFunction {
  const { types, scores, unknown } = vocabulary
  const pieces = new Map<string, number>()
  const bytes = new Map<number, number>()
  let longest = 1
  for (const [text, id] of vocabulary.ids) {
    if (isTextToken(types[id])) {
      pieces.set(text, id)
      longest = Math.max(longest, text.length)
    } else if (text.startsWith('<0x') && text.length === 6) {
      bytes.set(Number.parseInt(text.slice(3, 5), 16), id)
    }
  }

  const pushLeftover = (text: string, ids: number[]): void => {
    for (const byte of utf8.encode(text)) {
      const id = bytes.get(byte)
      if (id !== undefined) {
        ids.push(id)
        continue
      }
      if (unknown === undefined) throw noToken(text)
      ids.push(unknown) // SentencePiece without byte fallback: one unknown token for the character
      return
    }
  }

  return (input, ids) => {
    const text = input.replaceAll(' ', SPACE_MARK)
    const symbols = splitSymbols(text)
    const queue: Candidate[] = []
    const consider = (left: number): void => {
      const right = left + (symbols.sizes[left] ?? 0)
      const size = right + (symbols.sizes[right] ?? 0) - left
      if (left < 0 || right >= text.length || size > longest) return
      const id = pieces.get(text.slice(left, left + size))
      if (id !== undefined) push(queue, { left, size, score: scores[id] ?? 0 })
    }
    for (let left = 0; left < text.length; left += symbols.sizes[left] ?? 1) consider(left)

    for (let best = pop(queue); best !== undefined; best = pop(queue)) {
      const { left, size } = best
      const leftSize = symbols.sizes[left] ?? 0
      const right = left + leftSize
      // Outdated when either part has been merged with something else since.
      if (leftSize === 0 || leftSize + (symbols.sizes[right] ?? 0) !== size) continue
      symbols.sizes[left] = size
      symbols.sizes[right] = 0
      if (left + size < text.length) symbols.previous[left + size] = left
      consider(symbols.previous[left] ?? -1)
      consider(left)
    }

    for (let left = 0; left < text.length;) {
      const size = symbols.sizes[left] ?? 1
      const symbol = text.slice(left, left + size)
      const id = pieces.get(symbol)
      if (id === undefined) pushLeftover(symbol, ids)
      else ids.push(id)
      left += size
    }
  }
}

/** Symbols by their offset in the text: `sizes` (0 where none starts) and the offset of the `previous` one (-1 for the first). */
function splitSymbols(text: string): { sizes: Int32Array; previous: Int32Array } {
  const sizes = new Int32Array(text.length)
  const previous = new Int32Array(text.length)
  let before = -1
  for (let i = 0; i < text.length;) {
    const size = (text.codePointAt(i) ?? 0) > 0xffff ? 2 : 1
    sizes[i] = size
    previous[i] = before
    before = i
    i += size
  }
  return { sizes, previous }
}

// A binary heap, the best candidate at 0.

const isBetter = (a: Candidate, b: Candidate): boolean => a.score > b.score || (a.score === b.score && a.left < b.left)

function push(heap: Candidate[], item: Candidate): void {
  let i = heap.length
  for (; i > 0;) {
    const parent = (i - 1) >> 1
    const above = heap[parent] as Candidate
    if (!isBetter(item, above)) break
    heap[i] = above
    i = parent
  }
  heap[i] = item
}

function pop(heap: Candidate[]): Candidate | undefined {
  const best = heap[0]
  const item = heap.pop()
  const length = heap.length
  if (item === undefined || length === 0) return best
  let i = 0
  for (;;) {
    let child = 2 * i + 1
    if (child >= length) break
    if (child + 1 < length && isBetter(heap[child + 1] as Candidate, heap[child] as Candidate)) child++
    const below = heap[child] as Candidate
    if (!isBetter(below, item)) break
    heap[i] = below
    i = child
  }
  heap[i] = item
  return best
}

function noToken(text: string): TandemError {
  return new TandemError(
    'ERR_TOKENIZER_INVALID',
    `the vocabulary has no token for ${JSON.stringify(text)}, no byte tokens and no unknown token`,
  )
}
