/** A cache that is too small for all: sessions that wait take turns, nobody starves, and the answers are the same. */
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { KV_BLOCK_TOKENS } from '../../../src/abi/kernels.ts'
import { KvBlocks } from '../../../src/engine/kv-blocks.ts'
import type { KvHolder } from '../../../src/engine/kv-turns.ts'
import { loadModel } from '../../../src/engine/load-model.ts'
import { codeOf, greedy, type MicroModel, microModel, someTokens } from '../../fixtures/engine-micro.ts'

let model: MicroModel
beforeAll(async () => {
  model = await microModel()
})
afterAll(() => model[Symbol.asyncDispose]())

describe.each([
  ['with shared prefixes', true],
  ['without', false],
])('%s', (_, sharePrefix) => {
  test.each([256, 320, 512])('12 answers out of a cache of %i tokens are those of an ample one', async (kvTokens) => {
    const prompts = Array.from({ length: 12 }, (_each, index) => [...someTokens(40, 1), ...someTokens(5 + index * 7, index)])
    const options = { contextTokens: 256, sequences: 12, ubatch: 32, threads: 2 }
    const ample = await loadModel(model.path, { ...options, kvTokens: 256 * 12 })
    const expected = await Promise.all(prompts.map((prompt) => greedy(ample, prompt, 60)))
    await ample.close()
    await using engine = await loadModel(model.path, { ...options, kvTokens })
    let preemptions = 0
    const answers = prompts.map(async (prompt) => {
      await using session = engine.session()
      session.waitWhenFull()
      const out: number[] = []
      for await (const { token } of session.generate(prompt, { maxTokens: 60, sharePrefix })) if (token !== undefined) out.push(token)
      preemptions += session.preemptions
      return out
    })
    const isEnd = new Set<number>(engine.tokenizer.endOfGeneration)
    const cut = (tokens: readonly number[]): number[] => {
      const end = tokens.findIndex((token) => isEnd.has(token))
      return end < 0 ? [...tokens] : tokens.slice(0, end)
    }
    expect(await Promise.all(answers)).toEqual(expected.map(cut))
    if (kvTokens === 256) expect(preemptions).toBeGreaterThan(0)
  })
})

test('an ordinary session goes before those that wait, and none of them fails', async () => {
  await using engine = await loadModel(model.path, { contextTokens: 256, sequences: 4, ubatch: 32, threads: 2, kvTokens: 256 })
  const prompt = someTokens(100)
  const patient = engine.session()
  patient.waitWhenFull()
  await patient.sync(prompt)
  await using ordinary = engine.session()
  await ordinary.sync(someTokens(240, 5))
  expect(patient.preemptions).toBe(1)
  // it cannot have its part back now, and nobody who waits has any
  expect(await codeOf(patient.decode(1))).toBe('ERR_KV_EXHAUSTED')
  await ordinary.close()
  await using fresh = engine.session()
  expect((await patient.decode(1)).slice()).toEqual((await fresh.sync([...prompt, 1])).slice())
  await patient.close()
})

test('one that waits can be aborted and closed, and gives its place to the next', async () => {
  await using engine = await loadModel(model.path, { contextTokens: 256, sequences: 4, ubatch: 32, threads: 2, kvTokens: 256 })
  const sessions = Array.from({ length: 4 }, () => engine.session())
  for (const session of sessions) session.waitWhenFull()
  await sessions[0]!.sync(someTokens(200))
  const controller = new AbortController()
  const second = codeOf(sessions[1]!.sync(someTokens(200, 2), { signal: controller.signal }))
  const third = codeOf(sessions[2]!.sync(someTokens(200, 3)))
  const fourth = sessions[3]!.sync(someTokens(200, 4))
  await new Promise((resolve) => setImmediate(resolve))
  controller.abort()
  await sessions[2]!.close()
  expect([await second, await third]).toEqual(['ERR_ABORTED', 'ERR_CLOSED'])
  await sessions[0]!.close()
  await fourth
})

test('what the whole cache cannot hold fails, and nobody gives way for it', async () => {
  await using engine = await loadModel(model.path, { contextTokens: 256, sequences: 2, ubatch: 32, threads: 2, kvTokens: 128 })
  const [first, second] = [engine.session(), engine.session()]
  for (const session of [first, second]) session.waitWhenFull()
  await second.sync(someTokens(30))
  expect(await codeOf(first.sync(someTokens(200)))).toBe('ERR_KV_EXHAUSTED')
  expect(second.preemptions).toBe(0)
  for (const session of [first, second]) await session.close()
})

/** Sequences that want to become so long, some in a step when they are asked to give way. */
class Walker implements KvHolder {
  readonly table: { readonly blocks: number[] } = { blocks: [] }
  readonly rank: number
  readonly #blocks: KvBlocks
  isStepping = false
  mustLeave = false
  isWaiting = false
  length = 0

  constructor(blocks: KvBlocks) {
    this.#blocks = blocks
    this.rank = blocks.turns.nextRank()
    blocks.turns.join(this)
  }

  adopt(): void {}

  giveWay(): boolean {
    if (this.isStepping) {
      this.mustLeave = true
      return false
    }
    this.#blocks.truncate(this.table, 0)
    return true
  }
}

test('in any order of events everybody gets to its end, the oldest without ever giving way', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 4, max: 12 }),
      fc.array(fc.integer({ min: 1, max: 4 * KV_BLOCK_TOKENS }), { minLength: 2, maxLength: 8 }),
      fc.infiniteStream(fc.nat(1000)),
      async (total, lengths, random) => {
        const blocks = new KvBlocks(total)
        const walkers = lengths.map((end) => ({ end, walker: new Walker(blocks) }))
        let left = [...walkers]
        for (let turn = 0; left.length > 0; turn++) {
          expect(turn).toBeLessThan(20_000)
          const { end, walker } = left[random.next().value! % left.length]!
          if (walker.isStepping) {
            walker.isStepping = false
            if (walker.mustLeave) blocks.truncate(walker.table, 0)
            walker.mustLeave = false
            walker.length++
            if (walker.length >= end) {
              blocks.truncate(walker.table, 0)
              left = left.filter((each) => each.walker !== walker)
              blocks.turns.leave(walker)
            }
            blocks.turns.released(walker)
          } else if (!walker.isWaiting) {
            const promise = blocks.turns.take(walker, walker.length + 1)
            const go = (): void => {
              walker.isWaiting = false
              walker.isStepping = walker.table.blocks.length * KV_BLOCK_TOKENS > walker.length
            }
            if (promise) {
              walker.isWaiting = true
              void promise.then(go)
            } else go()
          }
          await Promise.resolve()
        }
        expect(blocks.free).toBe(total)
      },
    ),
    { seed: 7, numRuns: 40 },
  )
})
