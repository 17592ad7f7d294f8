/** rope_store and attend: the two share a cache whose inner order only they know, so they are checked together. */
import { beforeEach, describe, expect, test } from 'vitest'
import { ATTENTION_CHUNK_TOKENS, KERNEL_STATUS } from '../../src/abi/kernels.ts'
import { EPSILON, MAX_NMSE, ropeHead, Sequence, type Shape } from './attention-sequence.ts'
import { HOSTS } from './kernel-host.ts'
import { nmse } from './reference.ts'

const SHAPES: readonly (Shape & { tokens: number; withNorm: boolean })[] = [
  { heads: 4, kvHeads: 2, headDim: 64, rotary: 32, tokens: 71, withNorm: true },
  { heads: 12, kvHeads: 1, headDim: 128, rotary: 64, tokens: 40, withNorm: false },
  { heads: 3, kvHeads: 3, headDim: 32, rotary: 32, tokens: 65, withNorm: true },
  { heads: 16, kvHeads: 1, headDim: 36, rotary: 10, tokens: 33, withNorm: false },
  { heads: 2, kvHeads: 1, headDim: 4, rotary: 0, tokens: 3, withNorm: false },
  { heads: 10, kvHeads: 2, headDim: 20, rotary: 8, tokens: 2 * ATTENTION_CHUNK_TOKENS + 40, withNorm: false },
]

describe.each(HOSTS)('attention on $name', (host) => {
  beforeEach(() => host.reset())

  test.each(SHAPES)('$heads heads, $kvHeads of keys, width $headDim, rotary $rotary, $tokens tokens', ({ tokens, withNorm, ...shape }) => {
    const sequence = new Sequence(host, shape, tokens, withNorm)
    expect(sequence.ropeStore(0, tokens)).toBe(KERNEL_STATUS.ok)
    const rotated = sequence.rotated()
    const heads = Array.from({ length: tokens }, (_, t) => Array.from({ length: shape.heads }, (__, h) => [t, h] as const)).flat()
    const actual = heads.flatMap(([t, h]) =>
      Array.from(rotated.subarray(t * sequence.stride + h * shape.headDim).subarray(0, shape.headDim)),
    )
    const expected = heads.flatMap(([t, h]) => ropeHead(sequence.head(t, 0, h), sequence.norms?.[0], sequence.tokenAngles(t)))
    expect(nmse(actual, expected)).toBeLessThan(1e-13)

    const whole = sequence.attend([[0, tokens]])
    expect(nmse(whole, sequence.reference(rotated))).toBeLessThan(MAX_NMSE)
    expect(sequence.attend(Array.from({ length: tokens }, (_, t) => [t, 1] as const))).toEqual(whole)
    const width = shape.heads * shape.headDim
    for (const t of [0, tokens >> 1, Math.min(tokens, ATTENTION_CHUNK_TOKENS) - 1, tokens - 1]) {
      for (const step of [1, 2]) expect(sequence.attendInParts(t, step)).toEqual(whole.subarray(t * width, (t + 1) * width))
    }
    expect(
      sequence.attend([
        [2, tokens - 2],
        [0, 2],
      ]),
    ).toEqual(whole)
  })

  test('tokens shared out among callers give the same bits', () => {
    const shape = { heads: 4, kvHeads: 2, headDim: 64, rotary: 64 }
    const [one, many] = [new Sequence(host, shape, 50, true), new Sequence(host, shape, 50, true)]
    one.ropeStore(0, 50)
    for (const [begin, end] of [
      [33, 50],
      [0, 1],
      [1, 33],
      [50, 50],
    ] as const)
      expect(many.ropeStore(begin, end)).toBe(KERNEL_STATUS.ok)
    expect(many.rotated()).toEqual(one.rotated())
    expect(many.attend([[0, 50]])).toEqual(one.attend([[0, 50]]))
  })

  test('the same after tier-up', () => {
    const sequence = new Sequence(host, { heads: 8, kvHeads: 2, headDim: 32, rotary: 32 }, 34, false)
    sequence.ropeStore(0, 34)
    const first = sequence.attend([[0, 34]])
    const again = sequence.attend(Array.from({ length: 400 }, () => [0, 34] as const))
    expect(again).toEqual(first)
  })

  test('arguments that cannot be are refused', () => {
    const at = host.allocate(4096)
    const rope = (heads: number, kvHeads: number, headDim: number, rotary: number, begin = 0, end = 0): number =>
      host.call('rope_store', at, 64, at, at, 64, at, at, at, at, 0, 0, heads, kvHeads, headDim, rotary, EPSILON, begin, end)
    expect(rope(4, 2, 64, 64)).toBe(KERNEL_STATUS.ok)
    for (const [heads, kvHeads, headDim, rotary] of [
      [0, 1, 64, 64],
      [4, 0, 64, 64],
      [4, 2, 62, 32],
      [4, 2, 64, 66],
      [4, 2, 64, 3],
      [4, 2, 2048, 0],
    ] as const) {
      expect(rope(heads, kvHeads, headDim, rotary)).toBe(KERNEL_STATUS.shape)
    }
    expect(rope(4, 2, 64, 64, 3, 2)).toBe(KERNEL_STATUS.shape)
    const attend = (heads: number, kvHeads: number, kvHead: number, headDim: number, count = 0): number =>
      host.call('attend', at, 64, at, 64, at, at, at, at, 0, count, kvHead, heads, kvHeads, headDim, 1, at)
    expect(attend(4, 2, 1, 64)).toBe(KERNEL_STATUS.ok)
    for (const [heads, kvHeads, kvHead, headDim] of [
      [4, 3, 0, 64],
      [4, 2, 2, 64],
      [4, 2, -1, 64],
      [4, 2, 0, 30],
      [0, 0, 0, 64],
    ] as const) {
      expect(attend(heads, kvHeads, kvHead, headDim)).toBe(KERNEL_STATUS.shape)
    }
    expect(attend(4, 2, 0, 64, -1)).toBe(KERNEL_STATUS.shape)
    const part = (position: number, begin: number, end: number, head = 0): number =>
      host.call('attend_part', at, at, at, at, at, position, begin, end, head, 4, 2, 64, 1, at)
    expect(part(0, -1, 1)).toBe(KERNEL_STATUS.shape)
    expect(part(0, 0, 0)).toBe(KERNEL_STATUS.shape)
    expect(part(-1, 0, 1)).toBe(KERNEL_STATUS.shape)
    expect(part(ATTENTION_CHUNK_TOKENS - 1, 0, 2)).toBe(KERNEL_STATUS.shape)
    expect(part(0, 0, 1, 2)).toBe(KERNEL_STATUS.shape)
    const merge = (chunks: number, headDim: number, begin: number, end: number): number =>
      host.call('attend_merge', at, at, chunks, 2, headDim, begin, end)
    expect(merge(1, 64, 1, 1)).toBe(KERNEL_STATUS.ok)
    expect(merge(0, 64, 0, 1)).toBe(KERNEL_STATUS.shape)
    expect(merge(1, 62, 0, 1)).toBe(KERNEL_STATUS.shape)
    expect(merge(1, 64, -1, 1)).toBe(KERNEL_STATUS.shape)
    expect(merge(1, 64, 0, 3)).toBe(KERNEL_STATUS.shape)
  })
})
