/** matmul over every format: against float64 on the file's own bytes, and bit for bit against itself however the work is cut. */
import { beforeEach, describe, expect, test } from 'vitest'
import {
  activationOf,
  type ActivationPrecision,
  FORMATS,
  packedBytes,
  rowBytes,
  type Activation,
  type FormatName,
} from '../../src/abi/formats.ts'
import { KERNEL_STATUS, MATMUL, productFlags, recordBytes, scratchBytes } from '../../src/abi/kernels.ts'
import { floats, HOSTS, quantizeRows, upload, type KernelHost } from './kernel-host.ts'
import { decodeRow, dot, nmse, randomRows, randomWeights } from './reference.ts'

/** Against the same quantised activations only f32 rounding is left. */
const EXACT_NMSE = 1e-12
/**
 * Against unquantised activations: rounding to multiples of max / 127 per block makes noise of variance (max / 127)^2 / 12. The products of a few
 * rows with a few tokens scatter around that noise over the power of x; four times it is the bound. A second digit's steps are 254 times as small.
 */
function quantisedNmse(activation: Activation, x: Float32Array): number {
  if (activation === 'f32') return EXACT_NMSE
  if (activation === 'q16x32') return quantisedNmse('q8x32', x) / 254 ** 2
  if (activation === 'q16x256') return quantisedNmse('q8x256', x) / 254 ** 2
  const block = activation === 'q8x32' ? 32 : 256
  let noise = 0
  for (let i = 0; i < x.length; i += block) noise += (block / 12) * (Math.max(...x.subarray(i, i + block).map(Math.abs)) / 127) ** 2
  return (4 * noise) / x.reduce((sum, value) => sum + value ** 2, 0)
}

interface Case {
  readonly rows: number
  readonly columns: number
  readonly tokens: number
}

/** A weight format and what it is multiplied with. */
interface Kind {
  readonly format: FormatName
  readonly precision: ActivationPrecision
}

/** One of every way in which records are prepared and panels unpacked. */
const Q16_FORMATS: readonly FormatName[] = ['Q4_0', 'Q4_1', 'Q8_0', 'IQ4_NL', 'Q3_K', 'Q4_K', 'IQ4_XS']

const kindsOf = (host: KernelHost): Kind[] => [
  ...[...host.formats].map((format) => ({ format, precision: 'q8' as const })),
  ...Q16_FORMATS.map((format) => ({ format, precision: 'q16' as const })),
]

/** A packed matrix with what the reference needs. */
interface Matrix {
  readonly format: FormatName
  readonly rows: number
  readonly columns: number
  readonly activation: Activation
  readonly panels: number
  readonly decoded: Float64Array[]
}

function makeMatrix(host: KernelHost, { format, precision }: Kind, rows: number, columns: number): Matrix {
  const file = randomWeights(format, rows, columns, 1)
  const panels = host.allocate(packedBytes(FORMATS[format], rows, columns))
  expect(host.call('repack', FORMATS[format].id, panels, upload(host, file), columns, rows)).toBe(KERNEL_STATUS.ok)
  const stride = rowBytes(FORMATS[format], columns)
  const decoded = Array.from({ length: rows }, (_, r) => decodeRow(format, file.subarray(r * stride, (r + 1) * stride), columns))
  return { format, activation: activationOf(FORMATS[format], precision), rows, columns, panels, decoded }
}

interface Options {
  readonly flags?: number
  readonly xIndex?: Int32Array
  readonly yIndex?: Int32Array
  readonly scale?: Float32Array
  readonly bias?: Float32Array
  readonly before?: Float32Array
  readonly ranges?: readonly (readonly [number, number])[]
  readonly yRows?: number
}

/** Runs matmul into f32[yRows, rows] and returns it. */
function run(host: KernelHost, matrix: Matrix, records: number, tokens: number, options: Options = {}): Float32Array {
  const { format, activation, rows, columns, panels } = matrix
  const yRows = options.yRows ?? tokens
  const y = upload(host, options.before ?? new Float32Array(yRows * rows).fill(NaN))
  const scratch = host.allocate(scratchBytes(columns, 0, 0))
  const optional = (data: ArrayBufferView | undefined): number => (data ? upload(host, data) : 0)
  const [xIndex, yIndex, scale, bias] = [options.xIndex, options.yIndex, options.scale, options.bias].map(optional) as [
    number,
    number,
    number,
    number,
  ]
  for (const [begin, end] of options.ranges ?? [[0, rows]]) {
    const status = host.call(
      'matmul',
      FORMATS[format].id,
      (options.flags ?? MATMUL.store) | productFlags(activation),
      y,
      rows,
      panels,
      records,
      xIndex,
      yIndex,
      scale,
      bias,
      columns,
      begin,
      end,
      tokens,
      scratch,
    )
    expect(status).toBe(KERNEL_STATUS.ok)
  }
  return floats(host, y, yRows * rows)
}

const SHAPES: readonly Case[] = [
  { rows: 8, columns: 0, tokens: 1 },
  { rows: 13, columns: 0, tokens: 2 },
  { rows: 24, columns: 1408, tokens: 3 },
  { rows: 40, columns: 512, tokens: 5 },
  { rows: 17, columns: 768, tokens: 8 },
  { rows: 16, columns: 2048, tokens: 17 },
  { rows: 8, columns: 256, tokens: 75 },
]

/** The case for a format: 0 columns stands for one block, and widths are rounded up to whole blocks. */
function shapeFor(format: FormatName, shape: Case): Case {
  const block = FORMATS[format].blockElements
  return { ...shape, columns: Math.max(Math.ceil(shape.columns / block) * block, block) }
}

describe.each(HOSTS)('matmul on $name', (host) => {
  beforeEach(() => host.reset())

  describe.each(kindsOf(host))('$format, $precision', (kind) => {
    const { format } = kind
    const activation = activationOf(FORMATS[format], kind.precision)

    test.each(SHAPES.map((shape) => shapeFor(format, shape)))(
      '$rows rows, $columns columns, $tokens tokens',
      ({ rows, columns, tokens }) => {
        const matrix = makeMatrix(host, kind, rows, columns)
        const x = randomRows(tokens * columns, 2)
        const records = quantizeRows(host, activation, x, columns)
        const y = run(host, matrix, records, tokens)
        const size = recordBytes(activation, columns)
        const seen = Array.from({ length: tokens }, (_, t) => host.decodeRecord(activation, host.read(records + t * size, size), columns))
        const exact = Array.from({ length: tokens }, (_, t) => Float64Array.from(x.subarray(t * columns, (t + 1) * columns)))
        expect(
          nmse(
            y,
            seen.flatMap((row) => matrix.decoded.map((w) => dot(w, row))),
          ),
        ).toBeLessThan(EXACT_NMSE)
        // one block of one token can be unlucky: the statistical bound needs some width
        if (columns * tokens >= 512) {
          expect(
            nmse(
              y,
              exact.flatMap((row) => matrix.decoded.map((w) => dot(w, row))),
            ),
          ).toBeLessThan(quantisedNmse(activation, x))
        }
      },
    )

    test('rows and tokens cut any way give the same bits', () => {
      // slices of columns that are not all of a size
      const { rows, columns, tokens } = shapeFor(format, { rows: 45, columns: 800, tokens: 41 })
      const matrix = makeMatrix(host, kind, rows, columns)
      const records = quantizeRows(host, activation, randomRows(tokens * columns, 3), columns)
      const whole = run(host, matrix, records, tokens)
      expect(
        run(host, matrix, records, tokens, {
          ranges: [
            [16, 45],
            [0, 8],
            [8, 16],
          ],
        }),
      ).toEqual(whole)
      const size = recordBytes(activation, columns)
      for (const count of [1, 2, 3, 4, 5, 6, 7, 9, 16, 17, 36, 37]) {
        for (let first = 0; first + count <= tokens; first += count) {
          const part = run(host, matrix, records + first * size, count)
          expect(part, `tokens ${first} to ${first + count}`).toEqual(whole.slice(first * rows, (first + count) * rows))
        }
      }
    })

    test('indices, scale, bias and add', () => {
      const [rows, columns, tokens, yRows] = [21, 512, 7, 9]
      const matrix = makeMatrix(host, kind, rows, columns)
      const records = quantizeRows(host, activation, randomRows(tokens * columns, 4), columns)
      const plain = run(host, matrix, records, tokens)
      const xIndex = Int32Array.of(3, 3, 0, 6, 1, 5, 2)
      const yIndex = Int32Array.of(8, 0, 4, 1, 7, 2, 5)
      const scale = randomRows(tokens, 5)
      const bias = randomRows(rows, 6)
      const before = randomRows(yRows * rows, 7)
      const expected = before.slice()
      for (let t = 0; t < tokens; t++) {
        for (let r = 0; r < rows; r++) {
          const value = Math.fround(Math.fround(plain[xIndex[t]! * rows + r]! + bias[r]!) * scale[t]!)
          expected[yIndex[t]! * rows + r]! += value
        }
      }
      expect(run(host, matrix, records, tokens, { flags: MATMUL.add, xIndex, yIndex, scale, bias, before, yRows })).toEqual(expected)
    })

    test('a NaN or infinite activation reaches its own token and no other', () => {
      const [rows, columns] = [8, 512]
      const matrix = makeMatrix(host, kind, rows, columns)
      const x = randomRows(3 * columns, 8)
      const clean = run(host, matrix, quantizeRows(host, activation, x, columns), 3)
      for (const broken of [NaN, Infinity, -Infinity]) {
        const y = run(
          host,
          matrix,
          quantizeRows(
            host,
            activation,
            x.map((v, i) => (i === columns + 77 ? broken : v)),
            columns,
          ),
          3,
        )
        expect(y.slice(0, rows)).toEqual(clean.slice(0, rows))
        expect(y.slice(2 * rows)).toEqual(clean.slice(2 * rows))
        expect(y.slice(rows, 2 * rows).some((value) => !Number.isFinite(value))).toBe(true)
      }
    })

    test('the same after tier-up', () => {
      const [rows, columns] = [16, 512]
      const matrix = makeMatrix(host, kind, rows, columns)
      const records = quantizeRows(host, activation, randomRows(6 * columns, 9), columns)
      const first = run(host, matrix, records, 6)
      const again = [1, 6].map((tokens) => {
        const y = host.allocate(6 * rows * 4)
        const scratch = host.allocate(scratchBytes(columns, 0, 0))
        const call = (): number =>
          host.call(
            'matmul',
            FORMATS[format].id,
            productFlags(activation),
            y,
            rows,
            matrix.panels,
            records,
            0,
            0,
            0,
            0,
            columns,
            0,
            rows,
            tokens,
            scratch,
          )
        for (let i = 0; i < 600; i++) call()
        return floats(host, y, tokens * rows)
      })
      expect(again[0]).toEqual(first.slice(0, rows))
      expect(again[1]).toEqual(first)
    })
  })

  test('arguments that cannot be are refused', () => {
    const y = host.allocate(1 << 20)
    const call = (format: number, columns: number, begin: number, end: number, tokens = 1, flags = 0): number =>
      host.call('matmul', format, flags, y, 8, y, y, 0, 0, 0, 0, columns, begin, end, tokens, y)
    for (const unknown of [-1, 9, 63, 64, 1 << 30]) expect(call(unknown, 256, 0, 8)).toBe(KERNEL_STATUS.format)
    for (const format of Object.values(FORMATS)) {
      expect(call(format.id, 0, 0, 8)).toBe(KERNEL_STATUS.shape)
      expect(call(format.id, -256, 0, 8)).toBe(KERNEL_STATUS.shape)
      expect(call(format.id, 256, 4, 8)).toBe(KERNEL_STATUS.shape)
      expect(call(format.id, 256, -8, 8)).toBe(KERNEL_STATUS.shape)
      expect(call(format.id, 256, 8, 0)).toBe(KERNEL_STATUS.shape)
      expect(call(format.id, 256, 0, 8, -1)).toBe(KERNEL_STATUS.shape)
      expect(call(format.id, 256, 0, 8, 1, 4)).toBe(KERNEL_STATUS.shape)
      if (format.activation === 'f32') expect(call(format.id, 256, 0, 8, 1, MATMUL.q16)).toBe(KERNEL_STATUS.shape)
      if (format.blockElements > 1) expect(call(format.id, format.blockElements + 1, 0, 8)).toBe(KERNEL_STATUS.shape)
      expect(call(format.id, 256, 0, 0)).toBe(KERNEL_STATUS.ok)
    }
  })
})
