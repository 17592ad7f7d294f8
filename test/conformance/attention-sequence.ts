/** A sequence in a cache whose inner order only the kernels know, and what attention over it gives in float64. */
import {
  ATTENTION_CHUNK_TOKENS,
  attentionPartBytes,
  cacheBytes,
  KERNEL_STATUS,
  KV_BLOCK_TOKENS,
  scratchBytes,
} from '../../src/abi/kernels.ts'
import { floats, type KernelHost, upload } from './kernel-host.ts'
import { randomRows } from './reference.ts'

export interface Shape {
  readonly heads: number
  readonly kvHeads: number
  readonly headDim: number
  readonly rotary: number
}

export const EPSILON = 1e-5

/** cos then sin of each token's angles: f32[tokens, rotary]. */
function anglesOf(positions: Int32Array, rotary: number): Float32Array {
  const pairs = rotary / 2
  return Float32Array.from({ length: positions.length * rotary }, (_, i) => {
    const angle = positions[Math.floor(i / rotary)]! * 10000 ** (-(2 * (i % pairs)) / rotary)
    return i % rotary < pairs ? Math.cos(angle) : Math.sin(angle)
  })
}

/** The reference of one head: norm, then NEOX rotation. */
export function ropeHead(x: number[], norm: Float32Array | undefined, angles: Float32Array): number[] {
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
export class Sequence {
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
    const { scales, integers } = cacheBytes((2 * blocks + 1) * KV_BLOCK_TOKENS, shape.kvHeads, shape.headDim)
    // scales of what no token was written to are NaN: a kernel that reads them shows
    this.keyCache = upload(host, new Uint8Array(scales + integers).fill(0xff)) + scales
    this.valueCache = upload(host, new Uint8Array(scales + integers).fill(0xff)) + scales
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

  /** One token's attention from parts: `step` chunks at a time in descending order, then heads one by one. */
  attendInParts(token: number, step = 1): Float32Array {
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
    for (let end = chunks; end > 0; end -= step) {
      const begin = Math.max(0, end - step)
      for (let head = 0; head < kvHeads; head++) {
        call('attend_part', parts, q, keyCache, valueCache, table, position, begin, end, head, heads, kvHeads, headDim, scale, scratch)
      }
    }
    for (let head = heads - 1; head >= 0; head--) call('attend_merge', out, parts, chunks, heads, headDim, head, head + 1)
    return floats(this.host, out, heads * headDim)
  }

  /** float64 attention of tokens from `begin` on, nothing rounded. */
  reference(rotated: Float32Array, begin = 0): number[] {
    const { heads, kvHeads, headDim } = this.shape
    const tokens = this.positions.length
    const keys = Array.from({ length: kvHeads }, (_, h) =>
      Array.from({ length: tokens }, (__, t) => ropeHead(this.head(t, 1, h), this.norms?.[1], this.tokenAngles(t))),
    )
    const values = Array.from({ length: kvHeads }, (_, h) => Array.from({ length: tokens }, (__, t) => this.head(t, 2, h)))
    const out: number[] = []
    for (let t = begin; t < tokens; t++) {
      for (let h = 0; h < heads; h++) {
        const kv = Math.floor(h / (heads / kvHeads))
        const q = rotated.subarray(t * this.stride + h * headDim, t * this.stride + (h + 1) * headDim)
        const scores = Array.from(
          { length: t + 1 },
          (_, j) => keys[kv]![j]!.reduce((sum, value, d) => sum + value * q[d]!, 0) / Math.sqrt(headDim),
        )
        const most = scores.reduce((a, b) => Math.max(a, b))
        const weights = scores.map((score) => Math.exp(score - most))
        const total = weights.reduce((sum, w) => sum + w, 0)
        for (let d = 0; d < headDim; d++) out.push(weights.reduce((sum, w, j) => sum + w * values[kv]![j]![d]!, 0) / total)
      }
    }
    return out
  }
}

/**
 * What the rounding of keys, values, queries and weights may do to the result of `randomRows`, where every hundredth element is 8 times as large as the
 * others: 1e-9 to 4.3e-7 in the cases here, where keys and values in f16 alone give 2e-8 to 1.8e-7, and 5e-5 with large elements in the values.
 */
export const MAX_NMSE = 5e-7
