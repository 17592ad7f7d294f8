/** repack and dequantize_rows over every format. */
import { beforeEach, describe, expect, test } from 'vitest'
import { FORMATS, packedBytes, rowBytes } from '../../src/abi/formats.ts'
import { KERNEL_STATUS, scratchBytes } from '../../src/abi/kernels.ts'
import { floats, HOSTS, upload } from './kernel-host.ts'
import { decodeRow, hasExponent, randomWeights, scaleOffsets } from './reference.ts'

describe.each(HOSTS)('repack on $name', (host) => {
  beforeEach(() => host.reset())

  describe.each([...host.formats])('%s', (name) => {
    const format = FORMATS[name]
    const repack = (file: Uint8Array, rows: number, columns: number): [number, number] => {
      const panels = host.allocate(packedBytes(format, rows, columns) + 64)
      return [host.call('repack', format.id, panels, upload(host, file), columns, rows), panels]
    }

    test.each([
      [8, 256],
      [19, 1280],
      [1, 512],
    ])('%i rows of %i columns come back', (rows, columns) => {
      const file = randomWeights(name, rows, columns, 1)
      const [status, panels] = repack(file, rows, columns)
      expect(status).toBe(KERNEL_STATUS.ok)
      const size = packedBytes(format, rows, columns)
      expect(host.read(panels + size, 64), 'bytes behind the panels are untouched').toEqual(new Uint8Array(64).fill(0xa5))
      const ids = Int32Array.from({ length: rows + 1 }, (_, i) => (rows - i + rows) % rows)
      const y = host.allocate(ids.length * columns * 4)
      const scratch = host.allocate(scratchBytes(columns, 0, 0))
      expect(host.call('dequantize_rows', format.id, y, panels, upload(host, ids), columns, ids.length, scratch)).toBe(KERNEL_STATUS.ok)
      const stride = rowBytes(format, columns)
      ids.forEach((id, i) => {
        const exact = decodeRow(name, file.subarray(id * stride, (id + 1) * stride), columns)
        // d * scale * quant is exact in f32; formats with minima round once
        const worst = floats(host, y + i * columns * 4, columns).reduce(
          (most, value, c) => Math.max(most, Math.abs(value - Math.fround(exact[c]!))),
          0,
        )
        expect(worst).toBe(0)
      })
    })

    test('rows missing from the last panel are zero weights', () => {
      const [status, panels] = repack(randomWeights(name, 3, 256, 2), 3, 256)
      expect(status).toBe(KERNEL_STATUS.ok)
      const y = host.allocate(5 * 1024)
      const scratch = host.allocate(scratchBytes(256, 0, 0))
      expect(host.call('dequantize_rows', format.id, y, panels, upload(host, Int32Array.of(3, 4, 5, 6, 7)), 256, 5, scratch)).toBe(
        KERNEL_STATUS.ok,
      )
      expect(floats(host, y, 5 * 256).every((value) => value === 0)).toBe(true)
    })

    test('NaN and infinite weights are found wherever they are', () => {
      const [rows, columns] = [11, 512]
      const clean = randomWeights(name, rows, columns, 3)
      const places = scaleOffsets(name).length === 0 ? [0] : scaleOffsets(name)
      const bad = { F32: [0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001], BF16: [0x7f80, 0xff80, 0x7fc0] }[name as string] ?? [
        0x7c00, 0xfc00, 0x7e00, 0x7c01,
      ]
      const blocks = clean.length / format.blockBytes
      for (const block of [0, Math.floor(blocks / 2), blocks - 1]) {
        for (const place of places) {
          for (const bits of bad) {
            const broken = clean.slice()
            const view = new DataView(broken.buffer, block * format.blockBytes + place)
            if (name === 'F32') view.setUint32(0, bits, true)
            else if (hasExponent(name)) view.setUint8(0, 255)
            else view.setUint16(0, bits, true)
            expect(repack(broken, rows, columns)[0]).toBe(KERNEL_STATUS.notFinite)
          }
        }
      }
    })
  })

  test('MXFP4: an exponent is refused when a weight with it is no f32', () => {
    const { id, blockBytes } = FORMATS.MXFP4
    const panels = host.allocate(packedBytes(FORMATS.MXFP4, 1, 32))
    // nibbles of 5 are 6 times the scale, of 14 -8 times, of 15 -12 times
    const cases: readonly (readonly [number, number, number])[] = [
      [252, 0xff, KERNEL_STATUS.ok],
      [253, 0x55, KERNEL_STATUS.ok],
      [253, 0xee, KERNEL_STATUS.notFinite],
      [254, 0x33, KERNEL_STATUS.ok],
      [254, 0x44, KERNEL_STATUS.notFinite],
      [255, 0x00, KERNEL_STATUS.notFinite],
    ]
    for (const [exponent, nibbles, status] of cases) {
      const block = new Uint8Array(blockBytes).fill(nibbles)
      block[0] = exponent
      expect(host.call('repack', id, panels, upload(host, block), 32, 1), `exponent ${exponent}`).toBe(status)
    }
  })

  /** Every finite f16 with one sign. */
  const halves = Uint16Array.from({ length: 0x7c00 }, (_, bits) => bits)

  test.each([
    [
      'all in one row, and one by one beside the largest and the least',
      (bits: number, row: number) => (row === 0 ? bits : row % 2 ? 0x7bff : 1),
    ],
    ['each row its own size', (bits: number, row: number) => (row === 0 ? bits : bits & 0x3ff & ((1 << row) - 1))],
  ] as const)('F16: every number comes back and is multiplied exactly: %s', (_name, other) => {
    const format = FORMATS.F16
    const [rows, columns] = [8, halves.length + 1]
    const file = Uint16Array.from({ length: rows * columns }, (_, i) => {
      const [row, column] = [Math.floor(i / columns), i % columns]
      const bits = column < halves.length ? other(halves[column]!, row) : 0x8001
      return row % 3 === 2 ? bits | 0x8000 : bits
    })
    const panels = host.allocate(packedBytes(format, rows, columns))
    expect(host.call('repack', format.id, panels, upload(host, file), columns, rows)).toBe(KERNEL_STATUS.ok)
    const [y, scratch] = [host.allocate(rows * columns * 4), host.allocate(scratchBytes(columns, 0, 0))]
    const ids = upload(
      host,
      Int32Array.from({ length: rows }, (_, row) => row),
    )
    expect(host.call('dequantize_rows', format.id, y, panels, ids, columns, rows, scratch)).toBe(KERNEL_STATUS.ok)
    const exact = decodeRow('F16', new Uint8Array(file.buffer), rows * columns)
    expect(floats(host, y, rows * columns).findIndex((value, i) => value !== exact[i])).toBe(-1)
    // one column at a time: an activation of zeros but for one place gives back the weight there, scaled by a power of two
    for (let column = 0; column < columns; column += 1009) {
      const x = new Float32Array(columns)
      x[column] = 0.25
      expect(host.call('matmul', format.id, 0, y, rows, panels, upload(host, x), 0, 0, 0, 0, columns, 0, rows, 1, scratch)).toBe(
        KERNEL_STATUS.ok,
      )
      expect([...floats(host, y, rows)], `column ${column}`).toEqual(
        Array.from({ length: rows }, (_, row) => exact[row * columns + column]! / 4 + 0),
      )
    }
  })

  test('arguments that cannot be are refused', () => {
    const { repack, dequantize } = {
      repack: (format: number, columns: number, rows: number) => host.call('repack', format, 0, 0, columns, rows),
      dequantize: (format: number, columns: number, count: number) => host.call('dequantize_rows', format, 0, 0, 0, columns, count, 0),
    }
    for (const call of [repack, dequantize]) {
      for (const unknown of [-1, 9, 64, 1e9]) expect(call(unknown, 256, 0)).toBe(KERNEL_STATUS.format)
      for (const name of host.formats) {
        const { id, blockElements } = FORMATS[name]
        expect(call(id, 0, 8)).toBe(KERNEL_STATUS.shape)
        expect(call(id, 256, -1)).toBe(KERNEL_STATUS.shape)
        if (blockElements > 1) expect(call(id, blockElements + 1, 8)).toBe(KERNEL_STATUS.shape)
        expect(call(id, 256, 0)).toBe(KERNEL_STATUS.ok)
      }
    }
  })
})
