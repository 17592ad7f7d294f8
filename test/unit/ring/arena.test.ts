/** Arenas have a size that never changes, and what cannot be is refused by code. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { arenaBuffer, createArena, Layout, MAX_ARENA_BYTES, PAGE_BYTES } from '../../../src/ring/arena.ts'

describe('arena', () => {
  test('has whole pages of shared zeros', () => {
    const buffer = arenaBuffer(createArena(PAGE_BYTES + 1))
    expect(buffer).toBeInstanceOf(SharedArrayBuffer)
    expect(buffer.byteLength).toBe(2 * PAGE_BYTES)
    expect(new Uint8Array(buffer).every((byte) => byte === 0)).toBe(true)
  })

  test('may be 4 GiB: untouched pages cost nothing', () => {
    expect(arenaBuffer(createArena(MAX_ARENA_BYTES)).byteLength).toBe(MAX_ARENA_BYTES)
  })

  test.each([0, -1, Number.NaN, Infinity, MAX_ARENA_BYTES + 1])('cannot have %d bytes', (bytes) => {
    expect(() => createArena(bytes)).toThrow(expect.objectContaining({ code: 'ERR_ARENA_LIMIT' }))
  })
})

describe('layout', () => {
  test('reserves aligned ranges that do not overlap', () => {
    const request = fc.record({ bytes: fc.nat(1000), align: fc.constantFrom(1, 4, 64, 4096) })
    fc.assert(
      fc.property(fc.nat(10_000), fc.array(request, { maxLength: 30 }), (start, requests) => {
        const layout = new Layout(start)
        let end = start
        for (const { bytes, align } of requests) {
          const offset = layout.reserve(bytes, align)
          expect(offset % align).toBe(0)
          expect(offset).toBeGreaterThanOrEqual(end)
          expect(offset - end).toBeLessThan(align)
          end = offset + bytes
          expect(layout.bytes).toBe(end)
        }
      }),
    )
  })
})
