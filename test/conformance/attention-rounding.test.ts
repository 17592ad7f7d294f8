/** What attention's 16-bit integers do to hard cases, and that nothing infinite becomes finite. */
import { beforeEach, describe, expect, test } from 'vitest'
import { KERNEL_STATUS, KV_BLOCK_TOKENS, scratchBytes } from '../../src/abi/kernels.ts'
import { MAX_NMSE, Sequence, type Shape } from './attention-sequence.ts'
import { floats, HOSTS, upload } from './kernel-host.ts'
import { nmse, random } from './reference.ts'

function resize(vector: Float32Array, factor: number): void {
  for (let i = 0; i < vector.length; i++) vector[i]! *= factor
}

describe.each(HOSTS)('rounding of attention on $name', (host) => {
  beforeEach(() => host.reset())

  /** A sequence of which only the last token attends, after `change` has had its way with every token's q, k and v. */
  function lastOf(shape: Shape, tokens: number, change: (vector: Float32Array, token: number, part: 0 | 1 | 2) => void): Sequence {
    const sequence = new Sequence(host, shape, tokens, false)
    const data = floats(host, sequence.address, sequence.data.length)
    const { heads, kvHeads, headDim } = shape
    for (let token = 0; token < tokens; token++) {
      for (let head = 0; head < heads + 2 * kvHeads; head++) {
        const at = token * sequence.stride + head * headDim
        change(data.subarray(at, at + headDim), token, head < heads ? 0 : head < heads + kvHeads ? 1 : 2)
      }
    }
    sequence.data.set(data)
    host.write(sequence.address, data)
    expect(sequence.ropeStore(0, tokens)).toBe(KERNEL_STATUS.ok)
    return sequence
  }

  const LAST_SHAPE = { heads: 4, kvHeads: 1, headDim: 64, rotary: 0 }

  test.each<[name: string, tokens: number, change: (vector: Float32Array, token: number, part: 0 | 1 | 2) => void]>([
    ['one element of every key and query is 100 times the others', 600, (vector, _, part) => void (part < 2 && (vector[5]! *= 100))],
    ['one element of every value is 100 times the others', 600, (vector, _, part) => void (part === 2 && (vector[5]! *= 100))],
    ['all keys the same: a flat softmax', 4200, (vector, _, part) => void (part === 1 && vector.fill(0.5))],
    ['one token takes all', 4200, (vector, token, part) => void (part < 2 && vector.fill(part === 0 || token === 1234 ? 3 : 0.1))],
    [
      'small scores in great number beside a large one',
      4200,
      (vector, token, part) => void (part < 2 && vector.fill(part === 1 && token !== 77 ? -0.1 : 1)),
    ],
    ['values of very different sizes', 600, (vector, token, part) => void (part === 2 && resize(vector, 10 ** ((token % 7) - 3)))],
    ['values near zero, and zero', 600, (vector, token, part) => void (part === 2 && resize(vector, token % 3 === 0 ? 0 : 2 ** -30))],
    ['keys of zero', 100, (vector, _, part) => void (part === 1 && vector.fill(0))],
    ['large finite elements', 100, (vector, _, part) => resize(vector, part === 2 ? 2 ** 90 : 1)],
  ])('%s', (_, tokens, change) => {
    const sequence = lastOf(LAST_SHAPE, tokens, change)
    const width = LAST_SHAPE.heads * LAST_SHAPE.headDim
    const last = sequence.attend([[tokens - 1, 1]]).subarray((tokens - 1) * width)
    expect(nmse(last, sequence.reference(sequence.rotated(), tokens - 1))).toBeLessThan(MAX_NMSE)
    expect(sequence.attendInParts(tokens - 1, 3)).toEqual(last)
  })

  test('16,384 tokens', () => {
    const shape = { heads: 2, kvHeads: 1, headDim: 16, rotary: 0 }
    const sequence = lastOf(shape, 16_384, () => {})
    const last = sequence.attend([[16_383, 1]]).subarray(16_383 * 32)
    expect(nmse(last, sequence.reference(sequence.rotated(), 16_383))).toBeLessThan(MAX_NMSE)
  })

  test.each([NaN, Infinity, -Infinity, 2 ** 101])('an element of %d makes all NaN that depends on it, and nothing else', (bad) => {
    for (const part of [0, 1, 2] as const) {
      const sequence = lastOf(LAST_SHAPE, 70, (vector, token, which) => {
        if (which === part && token === 40) vector[9] = bad
      })
      const out = sequence.attend([[0, 70]])
      const width = LAST_SHAPE.heads * LAST_SHAPE.headDim
      const isPoisoned = (token: number): boolean => (part === 0 ? token === 40 : token >= 40)
      for (let token = 0; token < 70; token++) {
        const row = out.subarray(token * width, (token + 1) * width)
        expect(row.every((value) => Number.isNaN(value) === isPoisoned(token))).toBe(true)
      }
    }
  })

  test('values come back as whole steps of a 16,383rd of the largest; below 2^-40 they are zero', () => {
    const width = 64
    const next = random(3)
    const tokens = 40
    const samples = Float32Array.from({ length: tokens * width }, (_, i) => next() * 10 ** ((Math.floor(i / width) % 14) - 13))
    const sequence = new Sequence(host, { heads: 1, kvHeads: 1, headDim: width, rotary: 0 }, tokens, false)
    for (let t = 0; t < tokens; t++) {
      host.write(sequence.address + (t * sequence.stride + 2 * width) * 4, samples.subarray(t * width, (t + 1) * width))
    }
    expect(sequence.ropeStore(0, tokens)).toBe(KERNEL_STATUS.ok)
    // a token alone at the start of its own block: its weight is 1
    const table = upload(host, sequence.blockTable)
    const out = host.allocate(width * 4)
    const scratch = host.allocate(scratchBytes(0, 1, width))
    const { keyCache, valueCache, address, stride } = sequence
    for (const token of [0, KV_BLOCK_TOKENS]) {
      const positions = upload(host, Int32Array.of(0))
      const status = host.call(
        'attend',
        out,
        width,
        address,
        stride,
        keyCache,
        valueCache,
        table + (token / KV_BLOCK_TOKENS) * 4,
        positions,
        0,
        1,
        0,
        1,
        1,
        width,
        1,
        scratch,
      )
      expect(status).toBe(KERNEL_STATUS.ok)
      const want = samples.subarray(token * width, (token + 1) * width)
      const largest = want.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
      const back = floats(host, out, width)
      if (largest < 2 ** -40) expect(back.every((value) => value === 0)).toBe(true)
      else for (const [i, value] of want.entries()) expect(Math.abs(back[i]! - value)).toBeLessThan((0.501 * largest) / 16_383)
    }
  })
})
