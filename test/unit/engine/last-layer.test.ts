/** The last layer is worked out for the tokens that give logits alone: that changes no logit, whatever else is in the step. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Engine } from '../../../src/engine/engine.ts'
import { loadModel, planModel } from '../../../src/engine/load-model.ts'
import { definePipeline } from '../../../src/pipeline/define.ts'
import { allLogits, type MicroModel, microModel, SMALL, someTokens } from '../../fixtures/engine-micro.ts'

const MODULE = new URL('../../fixtures/user-functions.ts', import.meta.url)

/** An observer has to see every token: nothing is left out for it. */
const OBSERVED = definePipeline({
  name: 'observed',
  executor: 'wasm',
  userStages: [{ name: 'echo', after: 'combine', export: 'echo', module: MODULE, whenFull: 'drop' }],
})

let model: MicroModel
beforeAll(async () => {
  model = await microModel()
})
afterAll(() => model[Symbol.asyncDispose]())

/** The last logits of prompts that share steps with each other and with a sequence that decodes. */
async function together(engine: Engine, prompts: readonly (readonly number[])[]): Promise<Float32Array[]> {
  await using other = engine.session()
  await other.sync(someTokens(40, 99))
  const decodes = (async () => {
    for (const token of someTokens(20, 7)) await other.decode(token)
  })()
  const rows = await Promise.all(
    prompts.map(async (tokens) => {
      await using session = engine.session()
      return (await session.sync(tokens)).slice()
    }),
  )
  await decodes
  return rows
}

describe.each([1, 2, 3])('with %i workers', (threads) => {
  test('logits of prompts are those of evaluating every position, and those of a pipeline that keeps all rows', async () => {
    const prompts = [1, 5, 33, 90].map((length) => someTokens(length, length))
    await using engine = await loadModel(model.path, { ...SMALL, threads, sequences: 5 })
    await using observed = await loadModel(model.path, { ...SMALL, threads, sequences: 5, pipeline: OBSERVED })
    const expected = await Promise.all(prompts.map(async (tokens) => (await allLogits(engine, tokens)).at(-1)!))
    expect(await together(engine, prompts)).toEqual(expected)
    expect(await together(observed, prompts)).toEqual(expected)
  })
})

test('hidden states of the last token are those among all', async () => {
  await using engine = await loadModel(model.path, SMALL)
  await using session = engine.session()
  const tokens = someTokens(70)
  const states: Float32Array[] = []
  await session.hiddenStates(tokens, 'all', (index, state) => void (states[index] = state.slice()))
  let last: Float32Array | undefined
  await session.hiddenStates(tokens, 'last', (_index, state) => (last = state.slice()))
  expect(last).toEqual(states.at(-1))
})

test('only the last layer selects, and nothing does where a user stage looks on', async () => {
  const selects = async (pipeline?: typeof OBSERVED): Promise<boolean[]> => {
    const { programs } = await planModel(model.path, { ...SMALL, ...(pipeline ? { pipeline } : {}) })
    return programs.wasm!.calls.flatMap((call) =>
      call.stage === 'attention' ? [call.selects] : call.stage === 'head' ? [call.isSelected] : [],
    )
  }
  const layers = (await selects()).length - 1
  expect(await selects()).toEqual([...Array.from({ length: layers - 1 }, () => false), true, true])
  expect(await selects(OBSERVED)).toEqual(Array.from({ length: layers + 1 }, () => false))
})
