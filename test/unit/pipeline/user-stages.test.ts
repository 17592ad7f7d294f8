/** User stages in a program: where their calls stand, and what a model has no place for. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { compile } from '../../../src/pipeline/compile.ts'
import { definePipeline } from '../../../src/pipeline/define.ts'
import type { Program, StageCall } from '../../../src/pipeline/program.ts'
import { type UserStageOptions, VIEW_FIELDS } from '../../../src/pipeline/user-stage.ts'
import { makePlan } from '../../../src/placement/plan.ts'
import type { Model } from '../../../src/model/types.ts'
import { MACHINE, tinyModel, tinyModels } from '../../fixtures/engine-models.ts'

const at = (place: string, more: object = {}): UserStageOptions => {
  const [when, stage] = place.split(' ') as ['before', 'head']
  return { name: place, [when]: stage, module: '/tmp/x.mjs', ...more }
}

function programOf(model: Model, userStages: readonly UserStageOptions[], arenaBytes?: number): Program {
  const pipeline = definePipeline({ name: 'mine', executor: 'wasm', userStages })
  return compile(model, makePlan(model, MACHINE, pipeline, { contextTokens: 32, sequences: 1, threads: 1, arenaBytes })).wasm!
}

/** Without user stages the last layer is worked out for output tokens alone. */
const keepingRows = (call: StageCall): StageCall =>
  call.stage === 'attention' ? { ...call, selects: false } : call.stage === 'head' ? { ...call, isSelected: false } : call

test('without user stages a program has none, and with them it differs by their calls and by keeping all rows', () => {
  const model = tinyModel({ layers: 3, denseLayers: 1 })
  const plain = programOf(model, [])
  expect(plain.userStages).toBeUndefined()
  const own = programOf(
    model,
    Object.keys(VIEW_FIELDS).map((place) => at(place)),
  )
  expect(own.calls.filter(({ stage }) => stage !== 'user')).toEqual(plain.calls.map(keepingRows))
  expect(own.userStages!.map(({ fields }) => fields.map(({ name }) => name))).toEqual(Object.values(VIEW_FIELDS))
})

test('calls stand next to their stage, in its layer, in the arena of the residual stream', () => {
  const places = [
    'before attention',
    'after router',
    'before routedExperts',
    'after routedExperts',
    'before combine',
    'after combine',
    'after head',
  ]
  fc.assert(
    fc.property(tinyModels, (model) => {
      const { calls, userStages } = programOf(
        model,
        places.map((place) => at(place)),
      )
      for (const [index, call] of calls.entries()) {
        if (call.stage !== 'user') continue
        const { when, stage } = userStages![call.user]!
        const others = calls
          .map((each, place) => ({ each, place }))
          .filter(({ each }) => each.stage !== 'user' && each.stage !== 'transfer')
        const near = when === 'after' ? others.findLast(({ place }) => place < index)! : others.find(({ place }) => place > index)!
        expect(near.each.stage).toBe(stage)
        expect('layer' in near.each ? near.each.layer : undefined).toBe(call.layer)
        const combine = calls.find((each) => each.stage === 'combine' && each.layer === call.layer)
        if (stage === 'routedExperts') expect(call.arena).toBe(combine!.arena)
        else expect(call.arena).toBe(near.each.arena)
      }
    }),
    { numRuns: 30 },
  )
})

test('several at one place keep their order', () => {
  const { calls, userStages } = programOf(tinyModel(), [
    at('before head', { name: 'second' }),
    at('after head', { name: 'third' }),
    at('before head', { name: 'also second' }),
  ])
  const names = calls.map((call) => (call.stage === 'user' ? userStages![call.user]!.name : call.stage))
  expect(names.slice(-4)).toEqual(['second', 'also second', 'head', 'third'])
})

describe('refuses', () => {
  const invalid = (message: RegExp) =>
    expect.objectContaining({ code: 'ERR_PIPELINE_INVALID', message: expect.stringMatching(message) as string })

  test('a stage that the model does not have', () => {
    const model = tinyModel({ layers: 2, denseLayers: 0 })
    expect(() => programOf(model, [at('after denseFfn')])).toThrow(
      invalid(/'after denseFfn' is after denseFfn, which this model does not have/),
    )
  })

  test('a layer that does not have the stage', () => {
    const model = tinyModel({ layers: 3, denseLayers: 1 })
    expect(programOf(model, [at('after router', { layers: [2] })]).calls.filter(({ stage }) => stage === 'user').length).toBe(1)
    for (const layer of [0, 3]) {
      expect(() => programOf(model, [at('after router', { layers: [1, layer] })])).toThrow(
        invalid(new RegExp(`layer ${layer} of this model`)),
      )
    }
  })
})
