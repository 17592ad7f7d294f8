/**
 * Every kernel on every format over small made-up inputs. It does two jobs: it calls every function of the module, so that V8 optimises all of them before
 * the first token, and its results tell whether two builds of the same bytes compute the same.
 */
import { ACTIVATION, activationOf, type ActivationPrecision, type Format, FORMATS, packedBytes, rowBytes } from '../abi/formats.ts'
import {
  attentionPartBytes,
  cacheBytes,
  GATING,
  KERNEL_STATUS,
  type KernelExports,
  KV_BLOCK_TOKENS,
  MATMUL,
  productFlags,
  recordBytes,
  scratchBytes,
} from '../abi/kernels.ts'
import { arenaBuffer, Layout } from '../ring/arena.ts'
import { randomBlocks, randomFloats } from './self-test-data.ts'

/** Bytes of memory that a self-test needs from its `start`. */
export const SELF_TEST_BYTES = 2 << 20

/** One check: a name, and a function that runs kernels and returns the bytes that they wrote. */
export interface SelfTestCase {
  readonly name: string
  readonly run: (bench: Bench) => Uint8Array
}

/** A module instance with buffers handed out one after the other. */
export class Bench {
  readonly kernels: KernelExports
  readonly #memory: WebAssembly.Memory
  readonly #start: number
  #layout: Layout
  #statuses: number[] = []

  /** `start`: the first byte that the module and its stack leave free. */
  constructor(kernels: KernelExports, memory: WebAssembly.Memory, start: number) {
    this.kernels = kernels
    this.#memory = memory
    this.#start = start
    this.#layout = new Layout(start)
  }

  /** Runs a case with buffers of its own. What it returns, then the statuses of its kernels; or what it threw, since wrong code may well trap. */
  run(test: SelfTestCase): Uint8Array {
    this.#layout = new Layout(this.#start)
    this.#statuses = []
    try {
      const result = test.run(this)
      return Buffer.concat([result, Uint8Array.from(this.#statuses)])
    } catch (error) {
      return Buffer.from(String(error))
    }
  }

  /** Remembers what a kernel returned. */
  note(status: number): void {
    this.#statuses.push(status)
  }

  /** Statuses of the last case that are not ok. */
  get failures(): number[] {
    return this.#statuses.filter((status) => status !== KERNEL_STATUS.ok)
  }

  /** A zeroed buffer. */
  reserve(bytes: number): number {
    const offset = this.#layout.reserve(bytes)
    new Uint8Array(arenaBuffer(this.#memory), offset, bytes).fill(0)
    return offset
  }

  /** A buffer with a copy of `data`. */
  upload(data: Uint8Array | Float32Array | Int32Array): number {
    const offset = this.#layout.reserve(data.byteLength)
    new Uint8Array(arenaBuffer(this.#memory), offset).set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength))
    return offset
  }

  /** A copy of bytes. */
  read(offset: number, bytes: number): Uint8Array {
    return new Uint8Array(arenaBuffer(this.#memory), offset, bytes).slice()
  }
}

/** Two blocks of 256, or sixteen of 32. */
const COLUMNS = 512
/** Two whole panels and a part of one. */
const ROWS = 19
/** Every size that kernels cut their tokens into, and more than they take at once. */
const TOKENS = [1, 2, 3, 4, 5, 6, 7, 41]
const MOST_TOKENS = Math.max(...TOKENS)
const EPSILON = 1e-5

/** Uploads activation records of `MOST_TOKENS` rows, and what products are told of them. */
function records(bench: Bench, format: Format, precision: ActivationPrecision = 'q8'): { readonly x: number; readonly flags: number } {
  const activation = activationOf(format, precision)
  const flags = productFlags(activation)
  const rows = bench.upload(randomFloats(MOST_TOKENS * COLUMNS, 1))
  if (activation === 'f32') return { x: rows, flags }
  const offset = bench.reserve(MOST_TOKENS * recordBytes(activation, COLUMNS))
  bench.note(bench.kernels.quantize(ACTIVATION[activation], offset, rows, COLUMNS, MOST_TOKENS))
  return { x: offset, flags }
}

/** Repacks a made-up matrix. */
function matrix(bench: Bench, format: Format, seed: number): number {
  const blocks = randomBlocks(format, (ROWS * rowBytes(format, COLUMNS)) / format.blockBytes, seed)
  const panels = bench.reserve(packedBytes(format, ROWS, COLUMNS))
  bench.note(bench.kernels.repack(format.id, panels, bench.upload(blocks), COLUMNS, ROWS))
  return panels
}

function formatCases(format: Format): SelfTestCase[] {
  const { name, id } = format
  const scratch = scratchBytes(COLUMNS, 0, 0)
  return [
    {
      name: `repack ${name}`,
      run: (bench) => bench.read(matrix(bench, format, 2), packedBytes(format, ROWS, COLUMNS)),
    },
    {
      name: `dequantize_rows ${name}`,
      run: (bench) => {
        const ids = bench.upload(Int32Array.of(0, ROWS - 1, 9))
        const y = bench.reserve(3 * COLUMNS * 4)
        bench.note(bench.kernels.dequantize_rows(id, y, matrix(bench, format, 2), ids, COLUMNS, 3, bench.reserve(scratch)))
        return bench.read(y, 3 * COLUMNS * 4)
      },
    },
    {
      name: `matmul ${name}`,
      run: (bench) => {
        const [panels, { x }, work] = [matrix(bench, format, 2), records(bench, format), bench.reserve(scratch)]
        const [index, scale] = [
          bench.upload(Int32Array.from({ length: MOST_TOKENS }, (_, t) => (t * 5) % MOST_TOKENS)),
          bench.upload(randomFloats(MOST_TOKENS, 3)),
        ]
        const [bias, y] = [bench.upload(randomFloats(ROWS, 4)), bench.reserve(MOST_TOKENS * ROWS * 4)]
        for (const tokens of TOKENS) {
          bench.note(bench.kernels.matmul(id, MATMUL.add, y, ROWS, panels, x, index, index, scale, bias, COLUMNS, 0, ROWS, tokens, work))
        }
        bench.note(bench.kernels.matmul(id, MATMUL.store, y, ROWS, panels, x, 0, 0, 0, 0, COLUMNS, 8, ROWS, 1, work))
        return bench.read(y, MOST_TOKENS * ROWS * 4)
      },
    },
    {
      name: `gated ${name}`,
      run: (bench) => {
        const [gate, up] = [matrix(bench, format, 2), matrix(bench, format, 5)]
        const [{ x }, work, h] = [records(bench, format), bench.reserve(2 * scratch), bench.reserve(MOST_TOKENS * ROWS * 4)]
        for (const tokens of [1, 2, 3, MOST_TOKENS])
          bench.note(bench.kernels.gated(id, id, 0, h, ROWS, gate, up, x, 0, COLUMNS, 0, ROWS, tokens, work))
        return bench.read(h, MOST_TOKENS * ROWS * 4)
      },
    },
  ]
}

/** What is added to products by q16 records, which is the same for all formats. */
function q16Case(format: Format): SelfTestCase {
  return {
    name: `q16 with ${format.name}`,
    run: (bench) => {
      const [gate, up] = [matrix(bench, format, 2), matrix(bench, format, 5)]
      const [{ x, flags }, work] = [records(bench, format, 'q16'), bench.reserve(2 * scratchBytes(COLUMNS, 0, 0))]
      const [y, h] = [bench.reserve(MOST_TOKENS * ROWS * 4), bench.reserve(MOST_TOKENS * ROWS * 4)]
      for (const tokens of [1, MOST_TOKENS]) {
        bench.note(bench.kernels.matmul(format.id, MATMUL.add | flags, y, ROWS, gate, x, 0, 0, 0, 0, COLUMNS, 0, ROWS, tokens, work))
        bench.note(bench.kernels.gated(format.id, format.id, flags, h, ROWS, gate, up, x, 0, COLUMNS, 0, ROWS, tokens, work))
      }
      return Buffer.concat([y, h].map((offset) => bench.read(offset, MOST_TOKENS * ROWS * 4)))
    },
  }
}

interface AttentionShape {
  readonly heads: number
  readonly kvHeads: number
  readonly headDim: number
  readonly rotary: number
}

/** Stores keys of two blocks, then attends from the last tokens together and from one alone. */
function attentionCase({ heads, kvHeads, headDim, rotary }: AttentionShape): SelfTestCase {
  const tokens = KV_BLOCK_TOKENS + 9
  const [width, kvWidth] = [heads * headDim, kvHeads * headDim]
  return {
    name: `attention with ${heads} heads of ${headDim}`,
    run: (bench) => {
      const [q, k, v] = [
        bench.upload(randomFloats(tokens * width, 6)),
        bench.upload(randomFloats(tokens * kvWidth, 7)),
        bench.upload(randomFloats(tokens * kvWidth, 8)),
      ]
      const { scales, integers } = cacheBytes(2 * KV_BLOCK_TOKENS, kvHeads, headDim)
      const [keys, values] = [bench.reserve(scales + integers) + scales, bench.reserve(scales + integers) + scales]
      const positions = bench.upload(Int32Array.from({ length: tokens }, (_, t) => t))
      const [angles, norm] = [bench.upload(randomFloats(tokens * Math.max(1, rotary), 9)), bench.upload(randomFloats(headDim, 10))]
      const { kernels } = bench
      bench.note(
        kernels.rope_store(
          q,
          width,
          k,
          v,
          kvWidth,
          keys,
          values,
          positions,
          angles,
          norm,
          norm,
          heads,
          kvHeads,
          headDim,
          rotary,
          EPSILON,
          0,
          tokens,
        ),
      )
      const table = bench.upload(Int32Array.of(0, 1))
      const [out, scratch] = [bench.reserve(tokens * width * 4), bench.reserve(scratchBytes(0, heads, headDim))]
      const scale = 1 / Math.sqrt(headDim)
      const last = tokens - 1
      const [merged, parts] = [bench.reserve(width * 4), bench.reserve(attentionPartBytes(heads, headDim))]
      for (let head = 0; head < kvHeads; head++) {
        for (const [begin, count] of [
          [0, 1],
          [last - 8, 8],
          [last, 1],
        ] as const) {
          bench.note(
            kernels.attend(
              out,
              width,
              q,
              width,
              keys,
              values,
              table,
              positions,
              begin,
              count,
              head,
              heads,
              kvHeads,
              headDim,
              scale,
              scratch,
            ),
          )
        }
        const row = q + last * width * 4
        bench.note(kernels.attend_part(parts, row, keys, values, table, last, 0, 1, head, heads, kvHeads, headDim, scale, scratch))
      }
      bench.note(kernels.attend_merge(merged, parts, 1, heads, headDim, 0, heads))
      return Buffer.concat([
        bench.read(q, width * 4),
        bench.read(keys - scales, scales + integers),
        bench.read(values - scales, scales + integers),
        bench.read(out, tokens * width * 4),
        bench.read(merged, width * 4),
      ])
    },
  }
}

function routingCase(gating: number): SelfTestCase {
  const [experts, used, tokens] = [64, 6, 5]
  return {
    name: `routing ${gating}`,
    run: (bench) => {
      const [logits, bias] = [bench.upload(randomFloats(tokens * experts, 11)), bench.upload(randomFloats(experts, 12))]
      const pairs = tokens * used * 4
      const [ids, weights, offsets, token, weight] = [pairs, pairs, (experts + 1) * 4, pairs, pairs].map((bytes) =>
        bench.reserve(bytes),
      ) as [number, number, number, number, number]
      bench.note(bench.kernels.route(ids, weights, logits, bias, gating, 1, 2.5, experts, used, 0, tokens))
      bench.note(bench.kernels.group(offsets, token, weight, ids, weights, experts, used, tokens))
      return Buffer.concat([ids, weights, token, weight].map((offset) => bench.read(offset, pairs)))
    },
  }
}

const ELEMENTWISE: readonly SelfTestCase[] = [
  ...(['q8x32', 'q8x256', 'q16x32', 'q16x256'] as const).map((activation) => ({
    name: `quantize ${activation}`,
    run: (bench: Bench): Uint8Array => {
      const bytes = bench.kernels.record_bytes(ACTIVATION[activation], COLUMNS)
      const to = bench.reserve(3 * bytes)
      bench.note(bench.kernels.quantize(ACTIVATION[activation], to, bench.upload(randomFloats(3 * COLUMNS, 13)), COLUMNS, 3))
      return bench.read(to, 3 * bytes)
    },
  })),
  {
    name: 'rms_norm and combine',
    run: (bench) => {
      const [x, weight] = [bench.upload(randomFloats(3 * COLUMNS, 14)), bench.upload(randomFloats(COLUMNS, 15))]
      const y = bench.reserve(3 * COLUMNS * 4)
      bench.note(bench.kernels.rms_norm(y, x, weight, COLUMNS, 3, EPSILON))
      bench.note(bench.kernels.combine(y, x, 0, 3 * COLUMNS - 5))
      bench.note(bench.kernels.combine(y, x, y, 3 * COLUMNS))
      return bench.read(y, 3 * COLUMNS * 4)
    },
  },
]

/** Two parts of rows whose length is no multiple of a vector, then one with a NaN among equals. */
const BEST: SelfTestCase = {
  name: 'keep_best',
  run: (bench) => {
    const [columns, rows] = [COLUMNS + 3, 3]
    const values = randomFloats(rows * columns, 16).slice()
    values[2 * columns + 100] = NaN
    const [logits, best] = [bench.upload(values), bench.reserve(rows * 4)]
    const ids = bench.upload(new Int32Array(rows).fill(-1))
    for (const [begin, end] of [
      [0, COLUMNS / 2],
      [COLUMNS / 2, columns],
    ] as const) {
      bench.note(bench.kernels.keep_best(ids, best, logits, columns, begin, end, rows))
    }
    return Buffer.concat([bench.read(ids, rows * 4), bench.read(best, rows * 4)])
  },
}

/** All cases. Together they call every function of the module; `test/unit/wasm/compiled-ahead.test.ts` sees to that. */
export const SELF_TEST: readonly SelfTestCase[] = [
  ...ELEMENTWISE,
  BEST,
  ...Object.values(GATING).map(routingCase),
  attentionCase({ heads: 8, kvHeads: 2, headDim: 64, rotary: 32 }),
  attentionCase({ heads: 3, kvHeads: 3, headDim: 36, rotary: 0 }),
  ...Object.values(FORMATS).flatMap(formatCases),
  ...[FORMATS.Q4_0, FORMATS.Q4_K].map(q16Case),
]
