/** Made-up data for the self-test: the same in every run, finite in every format. */
import type { Format } from '../abi/formats.ts'

/** Numbers of 32 bits, one after the other (xorshift, https://www.jstatsoft.org/article/view/v008i14). */
function random(seed: number): () => number {
  let state = (seed * 0x9e3779b9) | 1
  return () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return state
  }
}

/** Values from -4 to 4. */
export function randomFloats(count: number, seed: number): Float32Array {
  const next = random(seed)
  const floats = new Float32Array(count)
  for (let i = 0; i < count; i++) floats[i] = next() / 2 ** 29
  return floats
}

/**
 * Blocks of a format. Nothing is known of where their scales lie, so every byte could be a part of one: with bit 2 clear no f16 is infinite or NaN, and the
 * first byte, which is the whole scale of the formats that have a power of two, is one of 2^-15 to 2^-4. Float formats get exponents in the middle.
 */
export function randomBlocks({ blockBytes, blockElements }: Format, blocks: number, seed: number): Uint8Array {
  const next = random(seed)
  const bytes = new Uint8Array(blocks * blockBytes)
  for (let i = 0; i < bytes.length; i++) {
    const byte = next() & 0xff
    const place = i % blockBytes
    if (blockElements === 1) bytes[i] = place === blockBytes - 1 ? (byte & 0x83) | 0x38 : byte
    else bytes[i] = place === 0 ? (byte & 0x0b) | 0x70 : byte & 0xfb
  }
  return bytes
}
