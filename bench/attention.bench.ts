/**
 * Attention of one layer on one thread, in a shape like GLM-4.5-Air's: 12 query heads share a key head of 128. Decode: one token against a filled cache.
 * Prefill: 128 tokens at the end of a context.
 */
import { cacheBytes, KV_BLOCK_TOKENS, scratchBytes } from '../src/abi/kernels.ts'
import { check as checkStatus } from '../src/wasm/kernels.ts'
import { nmse, randomRows } from '../test/conformance/reference.ts'
import { BenchArena } from './support/arena.ts'
import { type Case, expect, isWanted, type Settings, type Suite } from './support/suite.ts'

const HEADS = 12
const HEAD_DIM = 128
const STRIDE = (HEADS + 2) * HEAD_DIM
const SCALE = 1 / Math.sqrt(HEAD_DIM)

interface Shape {
  readonly name: string
  readonly keys: number
  readonly tokens: number
}

const SHAPES: readonly Shape[] = [
  { name: 'decode, 512 keys', keys: 512, tokens: 1 },
  { name: 'decode, 4,096 keys', keys: 4096, tokens: 1 },
  { name: 'decode, 16,384 keys', keys: 16_384, tokens: 1 },
  { name: 'prefill, 128 tokens of 128', keys: 128, tokens: 128 },
  { name: 'prefill, 128 tokens of 4,096', keys: 4096, tokens: 128 },
]

/** One query head of the last token in float64, nothing rounded. */
function reference(data: Float32Array, keys: number): Float64Array {
  const row = (token: number, at: number): Float32Array => data.subarray(token * STRIDE + at, token * STRIDE + at + HEAD_DIM)
  const q = row(keys - 1, 0)
  const scores = Array.from({ length: keys }, (_, t) => {
    const k = row(t, HEADS * HEAD_DIM)
    return SCALE * q.reduce((sum, value, i) => sum + value * k[i]!, 0)
  })
  const largest = scores.reduce((a, b) => Math.max(a, b))
  const weights = scores.map((score) => Math.exp(score - largest))
  const total = weights.reduce((a, b) => a + b)
  const out = new Float64Array(HEAD_DIM)
  for (const [t, weight] of weights.entries()) {
    const v = row(t, (HEADS + 1) * HEAD_DIM)
    for (let i = 0; i < HEAD_DIM; i++) out[i]! += (weight / total) * v[i]!
  }
  return out
}

/** A filled cache of one sequence, and the last tokens' attention over it. */
async function makeCase({ name, keys, tokens }: Shape): Promise<Case> {
  const blocks = Math.ceil(keys / KV_BLOCK_TOKENS)
  const { scales, integers } = cacheBytes(blocks * KV_BLOCK_TOKENS, 1, HEAD_DIM)
  const arena = await BenchArena.make(keys * (STRIDE + 2) * 4 + 2 * (scales + integers) + tokens * HEADS * HEAD_DIM * 4 + (1 << 20))
  const data = randomRows(keys * STRIDE, 1)
  const q = arena.upload(data)
  const [keyCache, valueCache] = [arena.allocate(scales + integers) + scales, arena.allocate(scales + integers) + scales]
  const numbers = Int32Array.from({ length: keys }, (_, index) => index)
  const positions = arena.upload(numbers)
  const table = arena.upload(numbers.subarray(0, blocks))
  const out = arena.allocate(tokens * HEADS * HEAD_DIM * 4)
  const scratch = arena.allocate(scratchBytes(0, HEADS, HEAD_DIM))
  const k = q + HEADS * HEAD_DIM * 4
  const v = k + HEAD_DIM * 4
  const { kernels } = arena
  // no rotation and no norm: what is stored is what was made
  checkStatus(
    kernels.rope_store(q, STRIDE, k, v, STRIDE, keyCache, valueCache, positions, 0, 0, 0, HEADS, 1, HEAD_DIM, 0, 1e-5, 0, keys),
    'rope_store',
  )
  const first = keys - tokens
  const run = (): void =>
    checkStatus(
      kernels.attend(
        out,
        HEADS * HEAD_DIM,
        q + first * STRIDE * 4,
        STRIDE,
        keyCache,
        valueCache,
        table,
        positions + first * 4,
        0,
        tokens,
        0,
        HEADS,
        1,
        HEAD_DIM,
        SCALE,
        scratch,
      ),
      'attend',
    )
  const check = (): void => {
    run()
    const error = nmse(arena.floats(out + (tokens - 1) * HEADS * HEAD_DIM * 4, HEAD_DIM), reference(data, keys))
    expect(error < 2e-8, `${name}: NMSE ${error}`)
  }
  // every token sees the keys up to its own: q . k and weight * v are two operations each per element and head
  const seen = (tokens * (first + 1 + keys)) / 2
  const operations = { amount: 4 * seen * HEADS * HEAD_DIM, unit: 'GOP/s' } as const
  const bytes = { amount: keys * (HEAD_DIM + 2) * 4, unit: 'GB/s' } as const
  return { name, work: tokens === 1 ? [bytes, operations] : [operations], check, run }
}

async function* cases(settings: Settings): AsyncGenerator<Case> {
  for (const shape of SHAPES) if (isWanted(settings, 'attention', shape.name)) yield await makeCase(shape)
}

export const suite: Suite = {
  name: 'attention',
  about: `${HEADS} query heads on 1 key head of ${HEAD_DIM}, 1 thread`,
  bothModes: true,
  cases,
}
