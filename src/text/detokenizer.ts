/** Token ids to text as they arrive, never half a character. */
import { incompleteTail } from './utf8.ts'
import type { DecodeOptions, Tokenizer } from './types.ts'

/** A stream of ids to text. */
export interface Detokenizer {
  /** The text that `id` completes; empty while a character is incomplete. Throws `ERR_TOKEN_RANGE`. */
  push(id: number): string
  /** What was held back: U+FFFD for the bytes of an incomplete character. Afterwards the next text begins. */
  flush(): string
}

const decoder = new TextDecoder('utf-8', { ignoreBOM: true }) // or a U+FEFF in the text would be lost
const SPACE = 0x20
const NOTHING = new Uint8Array(0)

/** A detokenizer. The pushes and the flush concatenated are what `tokenizer.decode` returns for all ids. */
export function createDetokenizer(tokenizer: Tokenizer, options: DecodeOptions = {}): Detokenizer {
  const skipSpecial = options.skipSpecial ?? true
  const dropsSpace = tokenizer.addSpacePrefix && options.continuation !== true
  let held: Uint8Array = NOTHING
  let isFirst = true

  return {
    push(id) {
      let bytes = tokenizer.tokenBytes(id)
      if (tokenizer.isControl(id)) {
        if (skipSpecial) return ''
      } else {
        if (isFirst && dropsSpace && bytes[0] === SPACE) bytes = bytes.subarray(1)
        isFirst = false
      }
      if (held.length > 0) bytes = concatenate(held, bytes)
      const tail = incompleteTail(bytes)
      held = tail === 0 ? NOTHING : bytes.slice(bytes.length - tail)
      return decoder.decode(bytes.subarray(0, bytes.length - tail))
    },
    flush() {
      const rest = decoder.decode(held)
      held = NOTHING
      isFirst = true
      return rest
    },
  }
}

function concatenate(a: Uint8Array, b: Uint8Array): Uint8Array {
  const both = new Uint8Array(a.length + b.length)
  both.set(a)
  both.set(b, a.length)
  return both
}
