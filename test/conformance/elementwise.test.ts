/** rms_norm, quantize, combine and gated. */
import { beforeEach, describe, expect, test } from 'vitest'
import { ACTIVATION, FORMATS, packedBytes, rowBytes, type Activation, type FormatName } from '../../src/abi/formats.ts'
import { KERNEL_STATUS, MATMUL, productFlags, recordBytes, scratchBytes } from '../../src/abi/kernels.ts'
import { floats, HOSTS, quantizeRows, upload } from './kernel-host.ts'
import { decodeRow, dot, nmse, randomRows, randomWeights } from './reference.ts'

/** f32 rounding of a few operations per element. */
const ELEMENT_NMSE = 1e-13

describe.each(HOSTS)('rms_norm on $name', (host) => {
  beforeEach(() => host.reset())

  test.each([4, 12, 64, 128, 1408, 5120])('%i columns', (columns) => {
    const tokens = 3
    const x = randomRows(tokens * columns, 1, 30)
    const weight = randomRows(columns, 2)
    const y = upload(host, x)
    expect(host.call('rms_norm', y, y, upload(host, weight), columns, tokens, 1e-5)).toBe(KERNEL_STATUS.ok)
    const expected = Array.from({ length: tokens }, (_, t) => {
      const row = Array.from(x.subarray(t * columns, (t + 1) * columns))
      const root = Math.sqrt(row.reduce((sum, v) => sum + v * v, 0) / columns + Math.fround(1e-5))
      return row.map((value, c) => (value / root) * weight[c]!)
    }).flat()
    expect(nmse(floats(host, y, x.length), expected)).toBeLessThan(ELEMENT_NMSE)
  })

  test('epsilon keeps zeros at zero', () => {
    const y = upload(host, new Float32Array(64))
    expect(host.call('rms_norm', y, y, upload(host, new Float32Array(64).fill(1)), 64, 1, 1e-6)).toBe(KERNEL_STATUS.ok)
    expect(floats(host, y, 64)).toEqual(new Float32Array(64))
  })

  test('widths it cannot do are refused', () => {
    for (const columns of [0, -4, 6]) expect(host.call('rms_norm', 0, 0, 0, columns, 1, 1e-6)).toBe(KERNEL_STATUS.shape)
    expect(host.call('rms_norm', 0, 0, 0, 4, -1, 1e-6)).toBe(KERNEL_STATUS.shape)
  })
})

describe.each(HOSTS)('quantize on $name', (host) => {
  beforeEach(() => host.reset())

  test.each([
    ['f32', 96, 1],
    ['q8x32', 1408, 32],
    ['q8x256', 2048, 256],
  ] as const)('%s', (activation, columns, block) => {
    const x = randomRows(2 * columns, 3, 5)
    x.fill(0, 0, block)
    const records = quantizeRows(host, activation, x, columns)
    const size = recordBytes(activation, columns)
    expect(host.call('record_bytes', ACTIVATION[activation], columns)).toBe(size)
    for (let t = 0; t < 2; t++) {
      const decoded = host.decodeRecord(activation, host.read(records + t * size, size), columns)
      for (let c = 0; c < columns; c++) {
        const first = t * columns + Math.floor(c / block) * block
        const most = Math.max(...x.subarray(first, first + block).map(Math.abs))
        // q8x256 has an eighth of the block's step, times what the largest of 16 values needs
        const group = t * columns + Math.floor(c / 16) * 16
        const mostOfGroup = Math.max(...x.subarray(group, group + 16).map(Math.abs))
        const share = activation === 'q8x256' ? Math.max(1, Math.ceil((8 * mostOfGroup) / most - 1e-6)) / 8 : 1
        const step = activation === 'f32' ? 0 : (most / 127) * (most === 0 ? 1 : share)
        // half a step, plus f32 rounding of the scale and of the quotient
        expect(Math.abs(decoded[c]! - x[t * columns + c]!)).toBeLessThanOrEqual(step * 0.5 + most * 3e-7 * Math.sign(step))
      }
    }
  })

  test.each([
    ['q16x32', 'q8x32', 1408],
    ['q16x256', 'q8x256', 2048],
  ] as const)('%s', (activation, digit, columns) => {
    const x = randomRows(2 * columns, 3, 5)
    x.fill(0, 0, 256)
    // a large value beside small ones, and a block too small to have any
    x[columns + 300] = 1e6
    x.fill(1e-36, columns + 512, columns + 768)
    const size = recordBytes(activation, columns)
    expect(host.call('record_bytes', ACTIVATION[activation], columns)).toBe(size)
    const records = quantizeRows(host, activation, x, columns)
    const first = quantizeRows(host, digit, x, columns)
    for (let t = 0; t < 2; t++) {
      const record = host.read(records + t * size, size)
      expect(record.subarray(0, size / 2)).toEqual(host.read(first + (t * size) / 2, size / 2))
      const block = digit === 'q8x32' ? 32 : 256
      host.decodeRecord(activation, record, columns).forEach((value, c) => {
        const at = t * columns + c
        const begin = t * columns + Math.floor(c / block) * block
        const most = Math.max(...x.subarray(begin, begin + block).map(Math.abs))
        // half a step of the second digit, whose largest value is half a step of the first; plus f32 rounding
        const bound = most < 1e-35 ? most : most / (2 * 127 * 2 * 127) + most * 1e-7
        expect(Math.abs(value - x[at]!), `column ${c} of token ${t}`).toBeLessThanOrEqual(bound)
      })
    }
  })

  test('what cannot be is refused', () => {
    expect(host.call('quantize', 5, 0, 0, 256, 1)).toBe(KERNEL_STATUS.format)
    expect(host.call('quantize', -1, 0, 0, 256, 1)).toBe(KERNEL_STATUS.format)
    expect(host.call('quantize', ACTIVATION.q8x32, 0, 0, 48, 1)).toBe(KERNEL_STATUS.shape)
    expect(host.call('quantize', ACTIVATION.q8x256, 0, 0, 1408, 1)).toBe(KERNEL_STATUS.shape)
    expect(host.call('quantize', ACTIVATION.q16x256, 0, 0, 1408, 1)).toBe(KERNEL_STATUS.shape)
    expect(host.call('quantize', ACTIVATION.f32, 0, 0, 32, -1)).toBe(KERNEL_STATUS.shape)
    expect(host.call('record_bytes', 9, 256)).toBe(0)
  })
})

describe.each(HOSTS)('combine on $name', (host) => {
  test.each([1, 7, 64, 4096])('%i values', (count) => {
    host.reset()
    const [x, a, b] = [randomRows(count, 1), randomRows(count, 2), randomRows(count, 3)]
    const address = upload(host, x)
    expect(host.call('combine', address, upload(host, a), upload(host, b), count)).toBe(KERNEL_STATUS.ok)
    const once = x.map((value, i) => value + Math.fround(a[i]! + b[i]!))
    expect(floats(host, address, count)).toEqual(once)
    expect(host.call('combine', address, upload(host, a), 0, count)).toBe(KERNEL_STATUS.ok)
    expect(floats(host, address, count)).toEqual(once.map((value, i) => value + a[i]!))
    expect(host.call('combine', address, address, 0, -1)).toBe(KERNEL_STATUS.shape)
  })
})

const silu = (g: number): number => g / (1 + Math.exp(-g))

describe.each(HOSTS)('gated on $name', (host) => {
  beforeEach(() => host.reset())

  const pairs: readonly (readonly [FormatName, FormatName, Activation])[] = [
    ['Q4_0', 'Q4_0', 'q8x32'],
    ['Q8_0', 'Q8_0', 'q8x32'],
    ['Q5_0', 'IQ4_NL', 'q8x32'],
    ['Q4_K', 'Q6_K', 'q8x256'],
    ['Q5_K', 'Q5_K', 'q8x256'],
    ['BF16', 'F16', 'f32'],
    ['Q4_0', 'Q4_0', 'q16x32'],
    ['Q5_0', 'IQ4_NL', 'q16x32'],
    ['Q4_K', 'Q4_K', 'q16x256'],
    ['Q4_K', 'Q6_K', 'q16x256'],
  ]
  test.each(pairs)('%s gate, %s up, %s', (gateFormat, upFormat, activation) => {
    const [rows, columns, tokens] = [27, 768, 43]
    const matrix = (format: FormatName, seed: number): { panels: number; decoded: Float64Array[] } => {
      const file = randomWeights(format, rows, columns, seed)
      const panels = host.allocate(packedBytes(FORMATS[format], rows, columns))
      expect(host.call('repack', FORMATS[format].id, panels, upload(host, file), columns, rows)).toBe(KERNEL_STATUS.ok)
      const stride = rowBytes(FORMATS[format], columns)
      return { panels, decoded: Array.from({ length: rows }, (_, r) => decodeRow(format, file.subarray(r * stride), columns)) }
    }
    const gate = matrix(gateFormat, 1)
    const up = matrix(upFormat, 2)
    const records = quantizeRows(host, activation, randomRows(tokens * columns, 3), columns)
    const size = recordBytes(activation, columns)
    const index = Int32Array.from({ length: tokens }, (_, t) => (t * 5) % tokens)
    const stride = rows + 5
    const run = (ranges: readonly (readonly [number, number])[], first: number, count: number): Float32Array => {
      const h = upload(host, new Float32Array(count * stride).fill(-7))
      const scratch = host.allocate(scratchBytes(columns, 0, 0))
      for (const [begin, end] of ranges) {
        const status = host.call(
          'gated',
          FORMATS[gateFormat].id,
          FORMATS[upFormat].id,
          productFlags(activation),
          h,
          stride,
          gate.panels,
          up.panels,
          records,
          upload(host, index.subarray(first, first + count)),
          columns,
          begin,
          end,
          count,
          scratch,
        )
        expect(status).toBe(KERNEL_STATUS.ok)
      }
      return floats(host, h, count * stride)
    }
    const whole = run([[0, rows]], 0, tokens)
    const seen = Array.from(index, (t) => host.decodeRecord(activation, host.read(records + t * size, size), columns))
    const expected = seen.flatMap((x) => [
      ...gate.decoded.map((w, r) => silu(dot(w, x)) * dot(up.decoded[r]!, x)),
      ...Array.from({ length: stride - rows }, () => -7),
    ])
    expect(nmse(whole, expected)).toBeLessThan(1e-11)
    expect(
      run(
        [
          [8, 16],
          [16, rows],
          [0, 8],
        ],
        0,
        tokens,
      ),
    ).toEqual(whole)
    for (const count of [1, 2, 3, 8, 17]) {
      for (let t = 0; t + count <= tokens; t += count + 2)
        expect(run([[0, rows]], t, count)).toEqual(whole.slice(t * stride, (t + count) * stride))
    }
  })

  test('formats with different activations, and shapes that cannot be, are refused', () => {
    const { Q4_0, Q4_K, F32 } = FORMATS
    const call = (gate: number, up: number, columns: number, begin = 0, flags = 0): number =>
      host.call('gated', gate, up, flags, 0, 8, 0, 0, 0, 0, columns, begin, 8, 0, 0)
    expect(call(Q4_0.id, Q4_K.id, 256)).toBe(KERNEL_STATUS.format)
    expect(call(F32.id, Q4_0.id, 256)).toBe(KERNEL_STATUS.format)
    expect(call(99, Q4_0.id, 256)).toBe(KERNEL_STATUS.format)
    expect(call(Q4_K.id, Q4_K.id, 1408)).toBe(KERNEL_STATUS.shape)
    expect(call(Q4_0.id, Q4_0.id, 1408, 3)).toBe(KERNEL_STATUS.shape)
    expect(call(Q4_0.id, Q4_0.id, 1408)).toBe(KERNEL_STATUS.ok)
    expect(call(Q4_0.id, Q4_0.id, 1408, 0, MATMUL.q16)).toBe(KERNEL_STATUS.ok)
    expect(call(Q4_0.id, Q4_0.id, 1408, 0, MATMUL.add)).toBe(KERNEL_STATUS.shape)
    expect(call(F32.id, F32.id, 256, 0, MATMUL.q16)).toBe(KERNEL_STATUS.shape)
  })

  test('silu over its whole range', () => {
    // one column, weight 1 on both sides: h = silu(x) * x
    const points = [-200, -89, -88, -87.4, -87, -50, -20, -5, -1, -1e-3, -1e-30, 0, 1e-30, 1e-3, 0.5, 1, 3, 10, 20, 88, 89, 500, 1e18]
    const { id } = FORMATS.F32
    const weights = host.allocate(32)
    expect(host.call('repack', id, weights, upload(host, Float32Array.of(1)), 1, 1)).toBe(KERNEL_STATUS.ok)
    const h = host.allocate(points.length * 4)
    const scratch = host.allocate(scratchBytes(1, 0, 0))
    expect(
      host.call('gated', id, id, 0, h, 1, weights, weights, upload(host, Float32Array.from(points)), 0, 1, 0, 1, points.length, scratch),
    ).toBe(0)
    floats(host, h, points.length).forEach((value, i) => {
      const x = Math.fround(points[i]!)
      expect(Math.abs(value - silu(x) * x), `x = ${x}`).toBeLessThanOrEqual(5e-7 * Math.abs(silu(x) * x) + 1e-30)
    })
  })
})
