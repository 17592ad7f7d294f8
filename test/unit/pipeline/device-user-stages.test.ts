/** User stages in a GPU's program: where their calls stand, and that there is no trace of them where there are none. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { heldLayers } from '../../../src/cuda/parts.ts'
import { compile } from '../../../src/pipeline/compile.ts'
import { definePipeline, type PipelineOptions } from '../../../src/pipeline/define.ts'
import type { CudaProgram, Programs } from '../../../src/pipeline/program.ts'
import { type UserStageOptions, VIEW_FIELDS } from '../../../src/pipeline/user-stage.ts'
import type { Model } from '../../../src/model/types.ts'
import type { PlacementOptions } from '../../../src/placement/options.ts'
import { makePlan } from '../../../src/placement/plan.ts'
import { GPU_MACHINE } from '../../fixtures/engine-models.ts'
import { gpuModel, gpuModels } from '../../fixtures/gpu-models.ts'

const LIMITS = { threads: 1, contextTokens: 64, ubatch: 4, sequences: 2 }
const HYBRID: PipelineOptions = { name: 'hybrid', executor: 'cuda', stages: { routedExperts: 'wasm' } }
const GPU: PipelineOptions = { name: 'gpu', executor: 'cuda' }
const model = gpuModel({ layers: 3 })

const at = (place: string, more: Partial<UserStageOptions> = {}): UserStageOptions => {
  const [when, stage] = place.split(' ') as ['before', 'head']
  return { name: place, [when]: stage, module: '/tmp/x.mjs', ...more } as UserStageOptions
}

const programs = (
  where: PipelineOptions,
  userStages: readonly UserStageOptions[],
  of: Model = model,
  options: PlacementOptions = {},
): Programs => compile(of, makePlan(of, GPU_MACHINE, definePipeline({ ...where, userStages }), { ...LIMITS, ...options }))

/** A layer's calls by name, user stages by their place. */
const callsOf = ({ calls, user }: CudaProgram, layer: number): string =>
  calls
    .filter((call) => call.layer === layer)
    .map((call) => (call.stage === 'user' ? `(${user!.userStages[call.user]!.name})` : call.stage))
    .join(' ')

const places = Object.keys(VIEW_FIELDS)

test.each([HYBRID, GPU])('without user stages a program has none, and with them it differs by their calls alone: $name', (where) => {
  const plain = programs(where, [])
  expect(plain.cuda!.user).toBeUndefined()
  expect(plain.cuda!.calls.map(({ stage }) => stage)).not.toContain('user')
  const { step, x, shared, routed, expertIds, expertWeights } = plain.cuda!.results
  expect([step, x, shared, routed, expertIds, expertWeights]).toEqual([0, 0, 0, 0, 0, 0])
  const own = programs(
    where,
    places.map((place) => at(place)),
  )
  expect(own.cuda!.calls.filter(({ stage }) => stage !== 'user')).toEqual(plain.cuda!.calls)
  expect(own.wasm).toEqual(plain.wasm)
  expect(own.cuda!.user!.userStages.map(({ fields }) => fields.map(({ name }) => name))).toEqual(Object.values(VIEW_FIELDS))
  expect(structuredClone(own)).toEqual(own)
})

test('calls stand next to their stage, in its layer, whatever the model', () => {
  fc.assert(
    fc.property(gpuModels, fc.constantFrom(HYBRID, GPU), fc.boolean(), (of, where, steer) => {
      const isThere = (place: string): boolean =>
        of.layers.some((layer) => (place.includes('dense') ? layer.dense : place.includes('shared') ? layer.shared : true))
      const wanted = places.filter(isThere)
      const { calls, user } = programs(
        where,
        wanted.map((place) => at(place, { steer })),
        of,
      ).cuda!
      const seen = new Map<string, number>()
      for (const [index, call] of calls.entries()) {
        if (call.stage !== 'user') continue
        const { name, when, stage } = user!.userStages[call.user]!
        seen.set(name, (seen.get(name) ?? 0) + 1)
        const others = calls.map((each, place) => ({ each, place })).filter(({ each }) => each.stage !== 'user')
        const before = others.findLast(({ place }) => place < index)?.each
        const after = others.find(({ place }) => place > index)?.each
        const near = when === 'after' ? before! : after!
        expect(near.layer).toBe(call.layer)
        if (near.stage === stage) continue
        // where the pool has the experts, they begin when it is told and end when it has answered
        const isHandOff = others.some(({ each }) => each.stage === 'publish' && each.layer === call.layer)
        expect(isHandOff).toBe(true)
        if (stage === 'router') expect(before!.stage).toBe('publish')
        else if (when === 'after') expect(before!.stage).toBe('awaitRouted')
        else expect(steer ? after!.stage : before!.stage).toBe('publish')
      }
      for (const place of wanted) {
        const stage = place.split(' ')[1]
        const layers = new Set(calls.filter((call) => call.stage === stage).map(({ layer }) => layer))
        if (stage !== 'routedExperts') expect(seen.get(place)).toBe(layers.size)
      }
    }),
    { numRuns: 30 },
  )
})

describe('behind a router whose experts are the pool’s', () => {
  const stages = (...steers: boolean[]): UserStageOptions[] => [
    at('after router', { steer: steers[0]! }),
    at('before routedExperts', { steer: steers[1]! }),
  ]

  test('observers are called when the pool has been told', () => {
    const { cuda } = programs(HYBRID, stages(false, false), model, { gpuExpertLayers: 1 })
    expect(callsOf(cuda!, 1)).toBe('attention router publish (after router) (before routedExperts) sharedExperts awaitRouted combine')
    expect(callsOf(cuda!, 2)).toBe('attention router (after router) sharedExperts (before routedExperts) routedExperts combine')
    expect([...heldLayers(cuda!)]).toEqual([])
  })

  test.each([
    [true, false],
    [false, true],
  ])('what steers comes before, and the hand-off is held: %s %s', (...steers) => {
    const { cuda } = programs(HYBRID, stages(...steers), model, { gpuExpertLayers: 1 })
    expect(callsOf(cuda!, 1)).toBe('attention router (after router) (before routedExperts) publish sharedExperts awaitRouted combine')
    expect([...heldLayers(cuda!)]).toEqual([1])
  })
})

test('refuses a stage that the model does not have, and a layer that does not have it', () => {
  const invalid = expect.objectContaining({ code: 'ERR_PIPELINE_INVALID' })
  expect(() => programs(GPU, [at('after sharedExperts')], gpuModel({ sharedExperts: 0 }))).toThrow(invalid)
  for (const layer of [0, 3]) {
    for (const where of [HYBRID, GPU]) expect(() => programs(where, [at('after routedExperts', { layers: [layer] })])).toThrow(invalid)
  }
})
