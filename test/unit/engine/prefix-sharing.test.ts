/** Blocks shared by sequences that begin alike: less work, the same results to the bit, and nobody writes what others have. */
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { KV_BLOCK_TOKENS } from '../../../src/abi/kernels.ts'
import type { Engine, Session } from '../../../src/engine/engine.ts'
import { type BlockTable, KvBlocks } from '../../../src/engine/kv-blocks.ts'
import { loadModel } from '../../../src/engine/load-model.ts'
import { type MicroModel, microModel, someTokens } from '../../fixtures/engine-micro.ts'

const PREFIX = someTokens(100)
const SHARED = { sharePrefix: true }

let model: MicroModel
let engine: Engine
beforeAll(async () => {
  model = await microModel()
  engine = await loadModel(model.path, { contextTokens: 256, kvTokens: 2048, sequences: 8, ubatch: 32, threads: 2 })
})
afterAll(async () => {
  await engine.close()
  await model[Symbol.asyncDispose]()
})

async function plain(tokens: readonly number[]): Promise<Float32Array> {
  await using session = engine.session()
  return (await session.sync(tokens)).slice()
}

async function counted(session: Session, tokens: readonly number[]): Promise<{ evaluated: number; logits: Float32Array }> {
  let evaluated = 0
  const logits = await session.sync(tokens, { ...SHARED, onProgress: (_, total) => void (evaluated = total) })
  return { evaluated, logits: logits.slice() }
}

describe('sessions that begin alike', () => {
  test('compute what is new, whether the other is open or closed', async () => {
    const first = engine.session()
    const prompts = [1, 2, 3].map((seed) => [...PREFIX, ...someTokens(20, seed)])
    expect((await counted(first, prompts[0]!)).evaluated).toBe(120)
    await using second = engine.session()
    const open = await counted(second, prompts[1]!)
    await first.close()
    await using third = engine.session()
    const closed = await counted(third, prompts[2]!)
    // 96 of the 100 are whole blocks
    expect([open.evaluated, closed.evaluated]).toEqual([24, 24])
    expect(open.logits).toEqual(await plain(prompts[1]!))
    expect(closed.logits).toEqual(await plain(prompts[2]!))
  })

  test('at the same moment: one computes and the others wait for it', async () => {
    const prefix = someTokens(96, 50)
    const prompts = [1, 2, 3, 4, 5].map((seed) => [...prefix, ...someTokens(9, seed)])
    const sessions = prompts.map(() => engine.session())
    const results = await Promise.all(prompts.map((prompt, index) => counted(sessions[index]!, prompt)))
    expect(results.map(({ evaluated }) => evaluated)).toEqual([105, 9, 9, 9, 9])
    for (const [index, prompt] of prompts.entries()) expect(results[index]!.logits).toEqual(await plain(prompt))
    for (const session of sessions) await session.close()
  })

  test('one that goes on differently in the middle of a shared block leaves the other alone', async () => {
    const prompt = someTokens(70, 60)
    await using first = engine.session()
    await using second = engine.session()
    await counted(first, prompt)
    await counted(second, prompt)
    const other = [...prompt.slice(0, 40), ...someTokens(30, 61)]
    expect((await counted(second, other)).logits).toEqual(await plain(other))
    second.truncate(10)
    expect(second.tokens).toEqual(prompt.slice(0, 10))
    expect((await second.decode(5, SHARED)).slice()).toEqual(await plain([...prompt.slice(0, 10), 5]))
    expect((await first.decode(7, SHARED)).slice()).toEqual(await plain([...prompt, 7]))
  })

  test('when the one that computes is aborted, the others compute it themselves', async () => {
    const prompt = someTokens(200, 70)
    const controller = new AbortController()
    await using first = engine.session()
    await using second = engine.session()
    const aborted = first.sync(prompt, { ...SHARED, signal: controller.signal, onProgress: () => controller.abort() })
    const waiting = counted(second, prompt)
    await expect(aborted).rejects.toMatchObject({ code: 'ERR_ABORTED' })
    expect((await waiting).logits).toEqual(await plain(prompt))
  })

  test('one that waits can be aborted and closed', async () => {
    const prompt = someTokens(200, 71)
    const sessions = [engine.session(), engine.session(), engine.session()]
    const first = sessions[0]!.sync(prompt, SHARED)
    const aborted = sessions[1]!.sync(prompt, { ...SHARED, signal: AbortSignal.timeout(1) })
    const closed = sessions[2]!.sync(prompt, SHARED)
    const outcomes = Promise.allSettled([aborted, closed])
    await sessions[2]!.close()
    await first
    const [, second] = await outcomes
    expect(second).toMatchObject({ status: 'rejected', reason: { code: 'ERR_CLOSED' } })
    for (const session of sessions) await session.close()
  })

  test('switched off, everything is computed', async () => {
    await using session = engine.session()
    let total = 0
    await session.sync([...PREFIX, 5], { onProgress: (_, all) => void (total = all) })
    expect(total).toBe(101)
  })

  test('answers are the same with and without, and say what was reused', async () => {
    const prompt = [...someTokens(64, 80), 3]
    const alone = await engine.generate(prompt, { maxTokens: 40, sharePrefix: false })
    await engine.generate(prompt, { maxTokens: 40 })
    const shared = await engine.generate(prompt, { maxTokens: 40 })
    expect(shared.text).toBe(alone.text)
    expect([alone.reusedTokens, shared.reusedTokens]).toEqual([0, 64])
  })
})

describe('the bookkeeping', () => {
  const TABLES = 4
  interface Sequence extends BlockTable {
    tokens: number[]
    stored: number
  }
  const actions = fc.array(
    fc.record({
      table: fc.nat(TABLES - 1),
      kind: fc.constantFrom('run' as const, 'run' as const, 'truncate' as const),
      // few different tokens, so that there is much to share
      blocks: fc.array(fc.nat(1), { minLength: 1, maxLength: 5 }),
      extra: fc.nat(KV_BLOCK_TOKENS - 1),
      length: fc.nat(KV_BLOCK_TOKENS * 5),
    }),
    { maxLength: 60 },
  )

  test('what a sequence reads is what was written for its tokens', () => {
    fc.assert(
      fc.property(fc.integer({ min: 6, max: 24 }), actions, (total, list) => {
        const blocks = new KvBlocks(total)
        const content = Array.from({ length: total }, (): string[] => [])
        const sequences = Array.from({ length: TABLES }, (): Sequence => ({ blocks: [], tokens: [], stored: 0 }))
        for (const { table, kind, blocks: shape, extra, length } of list) {
          const sequence = sequences[table]!
          if (kind === 'truncate') {
            sequence.tokens.length = Math.min(sequence.tokens.length, length)
            sequence.stored = blocks.truncate(sequence, Math.min(sequence.stored, length))
          } else {
            for (const token of shape) sequence.tokens.push(...Array.from({ length: KV_BLOCK_TOKENS }, () => token))
            sequence.tokens.push(...Array.from({ length: extra }, () => 1))
            if (sequence.stored === sequence.blocks.length * KV_BLOCK_TOKENS) {
              sequence.stored = blocks.adopt(sequence, sequence.tokens, sequence.tokens.length - 1)
            }
            try {
              blocks.grow(sequence, sequence.tokens.length)
            } catch {
              sequence.tokens.length = sequence.stored
            }
            for (; sequence.stored < sequence.tokens.length; sequence.stored++) {
              const block = sequence.blocks[Math.floor(sequence.stored / KV_BLOCK_TOKENS)]!
              content[block]![sequence.stored % KV_BLOCK_TOKENS] = sequence.tokens.slice(0, sequence.stored + 1).join('')
            }
            blocks.commit(sequence, sequence.tokens, sequence.stored)
          }
          for (const each of sequences) {
            for (let position = 0; position < each.stored; position++) {
              const block = each.blocks[Math.floor(position / KV_BLOCK_TOKENS)]!
              expect(content[block]![position % KV_BLOCK_TOKENS]).toBe(each.tokens.slice(0, position + 1).join(''))
            }
          }
          expect(blocks.free + new Set(sequences.flatMap((each) => each.blocks)).size).toBe(total)
        }
        for (const each of sequences) blocks.truncate(each, 0)
        expect(blocks.free).toBe(total)
      }),
      { seed: 7, numRuns: 60 },
    )
  })
})
