/** The KV cache's blocks: nobody shares one, none is lost, and a failure takes nothing. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { KV_BLOCK_TOKENS } from '../../../src/abi/kernels.ts'
import { type BlockTable, cacheRow, KvBlocks } from '../../../src/engine/kv-blocks.ts'

const TABLES = 6

interface Change {
  readonly kind: 'grow' | 'truncate'
  readonly table: number
  readonly tokens: number
}

const changes = fc.array(
  fc.record({
    kind: fc.constantFrom('grow' as const, 'truncate' as const),
    table: fc.nat(TABLES - 1),
    tokens: fc.nat(KV_BLOCK_TOKENS * 9),
  }),
  { maxLength: 60 },
)

function apply(blocks: KvBlocks, tables: readonly BlockTable[], { kind, table, tokens }: Change): void {
  const target = tables[table]!
  const before = { own: [...target.blocks], free: blocks.free }
  const wanted = Math.ceil(tokens / KV_BLOCK_TOKENS)
  if (kind === 'truncate') {
    blocks.truncate(target, tokens)
    expect(target.blocks).toEqual(before.own.slice(0, wanted))
    return
  }
  if (wanted - before.own.length > before.free) {
    expect(() => blocks.grow(target, tokens)).toThrow(expect.objectContaining({ code: 'ERR_KV_EXHAUSTED' }))
    expect(target.blocks).toEqual(before.own)
    expect(blocks.free).toBe(before.free)
    return
  }
  blocks.grow(target, tokens)
  // what was there stays where it was: the cache's bytes are not moved
  expect(target.blocks.slice(0, before.own.length)).toEqual(before.own)
  expect(target.blocks.length).toBe(Math.max(wanted, before.own.length))
}

describe('kv blocks', () => {
  test('no block is in two tables, and free and used ones are all there are', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 24 }), changes, (total, list) => {
        const blocks = new KvBlocks(total)
        const tables = Array.from({ length: TABLES }, (): BlockTable => ({ blocks: [] }))
        for (const change of list) {
          apply(blocks, tables, change)
          const used = tables.flatMap((table) => table.blocks)
          expect(new Set(used).size).toBe(used.length)
          expect(used.every((block) => Number.isInteger(block) && block >= 0 && block < total)).toBe(true)
          expect(blocks.free + used.length).toBe(total)
        }
        for (const table of tables) blocks.truncate(table, 0)
        expect(blocks.free).toBe(total)
      }),
      { seed: 7 },
    )
  })

  test('every position of every sequence has a row of its own, inside the cache', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 24 }), changes, (total, list) => {
        const blocks = new KvBlocks(total)
        const tables = Array.from({ length: TABLES }, (): BlockTable => ({ blocks: [] }))
        for (const change of list) apply(blocks, tables, change)
        const rows = tables.flatMap((table) =>
          Array.from({ length: table.blocks.length * KV_BLOCK_TOKENS }, (_, position) => cacheRow(table, position)),
        )
        expect(new Set(rows).size).toBe(rows.length)
        expect(rows.every((row) => row >= 0 && row < total * KV_BLOCK_TOKENS)).toBe(true)
      }),
      { seed: 7, numRuns: 50 },
    )
  })

  test('positions of one block are neighbours', () => {
    const blocks = new KvBlocks(3)
    const table: BlockTable = { blocks: [] }
    blocks.grow(table, KV_BLOCK_TOKENS + 1)
    for (let position = 0; position < KV_BLOCK_TOKENS; position++) expect(cacheRow(table, position)).toBe(cacheRow(table, 0) + position)
  })

  test('the error says what was needed, what there is, and what to do', () => {
    const blocks = new KvBlocks(2)
    expect(() => blocks.grow({ blocks: [] }, KV_BLOCK_TOKENS * 2 + 1)).toThrow(/65 tokens need 3 more blocks.*2 of 2 are free.*kvTokens/)
  })
})
