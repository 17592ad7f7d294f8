/**
 * The sampler's random numbers: xoshiro128** 1.1 by Blackman and Vigna (https://prng.di.unimi.it), seeded through splitmix64 as its
 * authors recommend. Integer arithmetic only, so a seed gives the same numbers on every machine.
 */

/** Uniform numbers in [0, 1), 53 random bits each. */
export type RandomSource = () => number

/** A generator for a seed, a whole number from 0 to 2^53 - 1. */
export function createRandom(seed: number): RandomSource {
  const state = splitmix64(BigInt(seed))
  const next = xoshiro128(state)
  // 27 + 26 bits make a double's 53.
  return () => ((next() >>> 5) * 0x4000000 + (next() >>> 6)) / 0x20000000000000
}

/** Raw 32-bit outputs for a state of four words that are not all zero. The state is used in place. */
export function xoshiro128(state: Uint32Array): () => number {
  return () => {
    const [s0 = 0, s1 = 0, s2 = 0, s3 = 0] = state
    const result = Math.imul(rotateLeft(Math.imul(s1, 5), 7), 9) >>> 0
    const t2 = s2 ^ s0
    const t3 = s3 ^ s1
    state[0] = s0 ^ t3
    state[1] = s1 ^ t2
    state[2] = t2 ^ (s1 << 9)
    state[3] = rotateLeft(t3, 11)
    return result
  }
}

const rotateLeft = (value: number, bits: number): number => (value << bits) | (value >>> (32 - bits))

/** Four words from one seed. */
function splitmix64(seed: bigint): Uint32Array {
  const words = new Uint32Array(4)
  let state = seed
  for (let i = 0; i < words.length; i += 2) {
    state = BigInt.asUintN(64, state + 0x9e3779b97f4a7c15n)
    let z = state
    z = BigInt.asUintN(64, (z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n)
    z = BigInt.asUintN(64, (z ^ (z >> 27n)) * 0x94d049bb133111ebn)
    z ^= z >> 31n
    words[i] = Number(BigInt.asUintN(32, z))
    words[i + 1] = Number(z >> 32n)
  }
  return words
}
