/**
 * Made-up data for the self-test: the same in every run, finite in every format. The test runs four times when kernels are compiled, so what has been made
 * up is kept, until the memory is wanted for something else; nobody writes into it.
 */
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

const kept = new Map<string, WeakRef<Float32Array | Uint8Array>>()

function once<Data extends Float32Array | Uint8Array>(key: string, make: () => Data): Data {
  const known = kept.get(key)?.deref() as Data | undefined
  if (known) return known
  const data = make()
  kept.set(key, new WeakRef(data))
  return data
}

/** Values from -4 to 4. */
export function randomFloats(count: number, seed: number): Float32Array {
  return once(`${count} floats ${seed}`, () => {
    const next = random(seed)
    const floats = new Float32Array(count)
    for (let i = 0; i < count; i++) floats[i] = next() / 2 ** 29
    return floats
  })
}

/**
 * Blocks of a format. Nothing is known of where their scales lie, so every byte could be a part of one: with bit 2 clear no f16 is infinite or NaN, and the
 * first byte, which is the whole scale of the formats that have a power of two, is one of 2^-15 to 2^-4. Float formats get exponents in the middle.
 */
export function randomBlocks({ name, blockBytes, blockElements }: Format, blocks: number, seed: number): Uint8Array {
  return once(`${blocks} ${name} ${seed}`, () => {
    const next = random(seed)
    const bytes = new Uint8Array(blocks * blockBytes)
    for (let i = 0; i < bytes.length; i++) {
      const byte = next() & 0xff
      const place = i % blockBytes
      if (blockElements === 1) bytes[i] = place === blockBytes - 1 ? (byte & 0x83) | 0x38 : byte
      else bytes[i] = place === 0 ? (byte & 0x0b) | 0x70 : byte & 0xfb
    }
    return bytes
  })
}
