/** rope_store and attend: the two share a cache whose inner order only they know, so they are checked together. */
import { beforeEach, describe, expect, test } from 'vitest'
import { ATTENTION_CHUNK_TOKENS, attentionPartBytes, KERNEL_STATUS, KV_BLOCK_TOKENS, scratchBytes } from '../../src/abi/kernels.ts'
import { floats, HOSTS, upload, type KernelHost } from './kernel-host.ts'
import { f16Bits, f16Value, nmse, random, randomRows } from './reference.ts'

interface Shape {
  readonly heads: number
  readonly kvHeads: number
  readonly headDim: number
  readonly rotary: number
}

const EPSILON = 1e-5
const f16 = (value: number): number => f16Value(f16Bits(value))

/** cos then sin of each token's angles: f32[tokens, rotary]. */
function anglesOf(positions: Int32Array, rotary: number): Float32Array {
  const pairs = rotary / 2
  return Float32Array.from({ length: positions.length * rotary }, (_, i) => {
    const angle = positions[Math.floor(i / rotary)]! * 10000 ** (-(2 * (i % pairs)) / rotary)
    return i % rotary < pairs ? Math.cos(angle) : Math.sin(angle)
  })
}

/** The reference of one head: norm, then NEOX rotation. */
function ropeHead(x: number[], norm: Float32Array | undefined, angles: Float32Array): number[] {
  const root = Math.sqrt(x.reduce((sum, v) => sum + v * v, 0) / x.length + EPSILON)
  const y = x.map((value, i) => (norm ? (value / root) * norm[i]! : value))
  const pairs = angles.length / 2
  for (let i = 0; i < pairs; i++) {
    const [a, b, cos, sin] = [y[i]!, y[i + pairs]!, angles[i]!, angles[i + pairs]!]
    y[i] = a * cos - b * sin
    y[i + pairs] = a * sin + b * cos
  }
  return y
}

/** One sequence in the cache: q, k and v of every token side by side, as one projection leaves them. */
class Sequence {
  readonly stride: number
  readonly data: Float32Array
  readonly positions: Int32Array
  readonly angles: Float32Array
  readonly blockTable: Int32Array
  readonly norms: readonly [Float32Array, Float32Array] | undefined
  readonly host: KernelHost
  readonly shape: Shape
  readonly address: number
  readonly keyCache: number
  readonly valueCache: number

  constructor(host: KernelHost, shape: Shape, tokens: number, withNorm: boolean, seed = 1) {
    this.host = host
    this.shape = shape
    this.stride = (shape.heads + 2 * shape.kvHeads) * shape.headDim
    this.data = randomRows(tokens * this.stride, seed, 1.5)
    this.positions = Int32Array.from({ length: tokens }, (_, t) => t)
    this.angles = anglesOf(this.positions, shape.rotary)
    const blocks = Math.ceil(tokens / KV_BLOCK_TOKENS)
    // out of order, with holes
    this.blockTable = Int32Array.from({ length: blocks }, (_, b) => (blocks - b) * 2 - 1)
    this.norms = withNorm ? [randomRows(shape.headDim, 5), randomRows(shape.headDim, 6)] : undefined
    this.address = upload(host, this.data)
    const cacheBytes = (2 * blocks + 1) * shape.kvHeads * KV_BLOCK_TOKENS * shape.headDim * 2
    // what no token was written to is NaN: a kernel that reads it shows
    this.keyCache = upload(host, new Uint8Array(cacheBytes).fill(0xff))
    this.valueCache = upload(host, new Uint8Array(cacheBytes).fill(0xff))
  }

  get cacheRows(): Int32Array {
    return this.positions.map((p) => this.blockTable[Math.floor(p / KV_BLOCK_TOKENS)]! * KV_BLOCK_TOKENS + (p % KV_BLOCK_TOKENS))
  }

  ropeStore(begin: number, end: number): number {
    const { heads, kvHeads, headDim, rotary } = this.shape
    const k = this.address + heads * headDim * 4
    const norm = this.norms?.map((data) => upload(this.host, data)) ?? [0, 0]
    return this.host.call(
      'rope_store',
      this.address,
      this.stride,
      k,
      k + kvHeads * headDim * 4,
      this.stride,
      this.keyCache,
      this.valueCache,
      upload(this.host, this.cacheRows),
      upload(this.host, this.angles),
      norm[0]!,
      norm[1]!,
      heads,
      kvHeads,
      headDim,
      rotary,
      EPSILON,
      begin,
      end,
    )
  }

  /** Head vectors of a token as the projection left them: of q (part 0), k (1) or v (2). */
  head(token: number, part: 0 | 1 | 2, head: number): number[] {
    const { heads, kvHeads, headDim } = this.shape
    const at = token * this.stride + ((part > 0 ? heads : 0) + (part > 1 ? kvHeads : 0) + head) * headDim
    return Array.from(this.data.subarray(at, at + headDim))
  }

  tokenAngles(token: number): Float32Array {
    return this.angles.subarray(token * this.shape.rotary, (token + 1) * this.shape.rotary)
  }

  /** q after the kernel ran: f32[tokens, stride]. */
  rotated(): Float32Array {
    return floats(this.host, this.address, this.data.length)
  }

  attend(ranges: readonly (readonly [number, number])[]): Float32Array {
    const { heads, kvHeads, headDim } = this.shape
    const tokens = this.positions.length
    const out = upload(this.host, new Float32Array(tokens * heads * headDim).fill(NaN))
    const scratch = this.host.allocate(scratchBytes(0, heads, headDim))
    const table = upload(this.host, this.blockTable)
    const positions = upload(this.host, this.positions)
    for (const [begin, count] of ranges) {
      for (let kvHead = kvHeads - 1; kvHead >= 0; kvHead--) {
        const status = this.host.call(
          'attend',
          out,
          heads * headDim,
          this.address,
          this.stride,
          this.keyCache,
          this.valueCache,
          table,
          positions,
          begin,
          count,
          kvHead,
          heads,
          kvHeads,
          headDim,
          1 / Math.sqrt(headDim),
          scratch,
        )
        if (status !== KERNEL_STATUS.ok) throw new Error(`attend: status ${status}`)
      }
    }
    return floats(this.host, out, tokens * heads * headDim)
  }

  /** One token's attention from parts: chunks in descending order, then heads one by one. */
  attendInParts(token: number): Float32Array {
    const { heads, kvHeads, headDim } = this.shape
    const chunks = Math.floor(this.positions[token]! / ATTENTION_CHUNK_TOKENS) + 1
    const parts = this.host.allocate(chunks * attentionPartBytes(heads, headDim))
    const out = this.host.allocate(heads * headDim * 4)
    const scratch = this.host.allocate(scratchBytes(0, heads, headDim))
    const table = upload(this.host, this.blockTable)
    const q = this.address + token * this.stride * 4
    const scale = 1 / Math.sqrt(headDim)
    const { keyCache, valueCache } = this
    const position = this.positions[token]!
    const call: KernelHost['call'] = (name, ...args) => {
      const status = this.host.call(name, ...args)
      if (status !== KERNEL_STATUS.ok) throw new Error(`${name}: status ${status}`)
      return status
    }
    for (let chunk = chunks - 1; chunk >= 0; chunk--) {
      for (let head = 0; head < kvHeads; head++) {
        call('attend_part', parts, q, keyCache, valueCache, table, position, chunk, head, heads, kvHeads, headDim, scale, scratch)
      }
    }
    for (let head = heads - 1; head >= 0; head--) call('attend_merge', out, parts, chunks, heads, headDim, head, head + 1)
    return floats(this.host, out, heads * headDim)
  }

  /** float64 attention over keys and values rounded to f16. */
  reference(rotated: Float32Array): number[] {
    const { heads, kvHeads, headDim } = this.shape
    const tokens = this.positions.length
    const keys = Array.from({ length: kvHeads }, (_, h) =>
      Array.from({ length: tokens }, (__, t) => ropeHead(this.head(t, 1, h), this.norms?.[1], this.tokenAngles(t)).map(f16)),
    )
    const values = Array.from({ length: kvHeads }, (_, h) => Array.from({ length: tokens }, (__, t) => this.head(t, 2, h).map(f16)))
    const out: number[] = []
    for (let t = 0; t < tokens; t++) {
      for (let h = 0; h < heads; h++) {
        const kv = Math.floor(h / (heads / kvHeads))
        const q = rotated.subarray(t * this.stride + h * headDim, t * this.stride + (h + 1) * headDim)
        const scores = Array.from(
          { length: t + 1 },
          (_, j) => keys[kv]![j]!.reduce((sum, value, d) => sum + value * q[d]!, 0) / Math.sqrt(headDim),
        )
        const most = Math.max(...scores)
        const weights = scores.map((score) => Math.exp(score - most))
        const total = weights.reduce((sum, w) => sum + w, 0)
        for (let d = 0; d < headDim; d++) out.push(weights.reduce((sum, w, j) => sum + w * values[kv]![j]![d]!, 0) / total)
      }
    }
    return out
  }
}

const SHAPES: readonly (Shape & { tokens: number; withNorm: boolean })[] = [
  { heads: 4, kvHeads: 2, headDim: 64, rotary: 32, tokens: 71, withNorm: true },
  { heads: 12, kvHeads: 1, headDim: 128, rotary: 64, tokens: 40, withNorm: false },
  { heads: 3, kvHeads: 3, headDim: 32, rotary: 32, tokens: 65, withNorm: true },
  { heads: 16, kvHeads: 1, headDim: 36, rotary: 10, tokens: 33, withNorm: false },
  { heads: 2, kvHeads: 1, headDim: 4, rotary: 0, tokens: 3, withNorm: false },
  { heads: 5, kvHeads: 1, headDim: 20, rotary: 8, tokens: 2 * ATTENTION_CHUNK_TOKENS + 40, withNorm: false },
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
    // a key near the middle of two f16 values may round the other way than in float64: 1e-7 of the keys, one f16 unit each
    expect(nmse(whole, sequence.reference(rotated))).toBeLessThan(1e-10)
    expect(sequence.attend(Array.from({ length: tokens }, (_, t) => [t, 1] as const))).toEqual(whole)
    const width = shape.heads * shape.headDim
    for (const t of [0, tokens >> 1, Math.min(tokens, ATTENTION_CHUNK_TOKENS) - 1, tokens - 1]) {
      expect(sequence.attendInParts(t)).toEqual(whole.subarray(t * width, (t + 1) * width))
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

  test('f32 to f16 rounds to nearest even: every f16, its neighbours, ties, subnormals, overflow', () => {
    // values go through the value cache of rows that hold nothing else; a block table of one block and weight 1 bring them back
    const width = 512
    const next = random(3)
    const samples: number[] = []
    for (let bits = 0; bits < 0x7c00; bits += 7) {
      const [value, above] = [f16Value(bits), f16Value(bits + 1)]
      const tie = (value + (Number.isFinite(above) ? above : 65536)) / 2
      samples.push(value, -value, tie, -tie, tie * (1 + 2 ** -20), tie * (1 - 2 ** -20), value + next() * (tie - value))
    }
    samples.push(0, -0, 65504, 65519.99, 65520, -65520, 1e30, Infinity, -Infinity, 2 ** -25, 2 ** -25 * 1.0001, 1e-30, NaN)
    while (samples.length % width !== 0) samples.push(0)
    const tokens = samples.length / width
    const v = upload(host, Float32Array.from(samples))
    const k = upload(host, new Float32Array(samples.length))
    const q = upload(host, new Float32Array(samples.length))
    const cacheBytes = tokens * KV_BLOCK_TOKENS * width * 2
    const [keys, values] = [host.allocate(cacheBytes), host.allocate(cacheBytes)]
    // each token alone at the start of its own block
    const rows = upload(
      host,
      Int32Array.from({ length: tokens }, (_, t) => t * KV_BLOCK_TOKENS),
    )
    expect(host.call('rope_store', q, width, k, v, width, keys, values, rows, q, 0, 0, 1, 1, width, 0, EPSILON, 0, tokens)).toBe(
      KERNEL_STATUS.ok,
    )
    const out = host.allocate(samples.length * 4)
    const scratch = host.allocate(scratchBytes(0, 1, width))
    const positions = upload(host, new Int32Array(tokens))
    for (let t = 0; t < tokens; t++) {
      const table = upload(host, Int32Array.of(t))
      expect(host.call('attend', out, width, q, width, keys, values, table, positions, t, 1, 0, 1, 1, width, 1, scratch)).toBe(
        KERNEL_STATUS.ok,
      )
    }
    const back = floats(host, out, samples.length)
    const wrong = samples.flatMap((value, i) => {
      const want = f16(Math.fround(value))
      // -0 comes back as 0: it is added to 0
      return back[i] === want || (Number.isNaN(want) && Number.isNaN(back[i])) ? [] : [{ value, got: back[i], want }]
    })
    expect(wrong).toEqual([])
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
    const part = (position: number, chunk: number, head = 0): number =>
      host.call('attend_part', at, at, at, at, at, position, chunk, head, 4, 2, 64, 1, at)
    expect(part(0, -1)).toBe(KERNEL_STATUS.shape)
    expect(part(ATTENTION_CHUNK_TOKENS - 1, 1)).toBe(KERNEL_STATUS.shape)
    expect(part(0, 0, 2)).toBe(KERNEL_STATUS.shape)
    const merge = (chunks: number, headDim: number, begin: number, end: number): number =>
      host.call('attend_merge', at, at, chunks, 2, headDim, begin, end)
    expect(merge(1, 64, 1, 1)).toBe(KERNEL_STATUS.ok)
    expect(merge(0, 64, 0, 1)).toBe(KERNEL_STATUS.shape)
    expect(merge(1, 62, 0, 1)).toBe(KERNEL_STATUS.shape)
    expect(merge(1, 64, -1, 1)).toBe(KERNEL_STATUS.shape)
    expect(merge(1, 64, 0, 3)).toBe(KERNEL_STATUS.shape)
  })
})
