/**
 * The byte alphabet of byte-level BPE: every byte has one printable character, so that vocabularies and merges are plain text.
 * Bytes that print in Latin-1 stand for themselves, the other 68 are moved to U+0100 and up in order (GPT-2's `bytes_to_unicode`).
 */

const isPrintable = (byte: number): boolean => (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae

function buildAlphabet(): string[] {
  let moved = 0
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(isPrintable(byte) ? byte : 0x100 + moved++))
}

/** The character of each byte. */
export const BYTE_CHARACTERS: readonly string[] = buildAlphabet()

const BYTE_OF_CHARACTER = new Int16Array(0x144).fill(-1)
for (const [byte, character] of BYTE_CHARACTERS.entries()) BYTE_OF_CHARACTER[character.charCodeAt(0)] = byte

const utf8 = new TextEncoder()

/** Text as the alphabet's characters, one per UTF-8 byte. Lone surrogates count as U+FFFD. */
export function toByteLevel(text: string): string {
  let result = ''
  for (const byte of utf8.encode(text)) result += BYTE_CHARACTERS[byte]
  return result
}

/** The bytes that a byte-level token stands for, or `undefined` when it has a character that is not in the alphabet. */
export function fromByteLevel(token: string): Uint8Array | undefined {
  const bytes = new Uint8Array(token.length)
  for (let i = 0; i < token.length; i++) {
    const byte = BYTE_OF_CHARACTER[token.charCodeAt(i)] ?? -1
    if (byte < 0) return undefined
    bytes[i] = byte
  }
  return bytes
}
