/** A step's parts: where it is interrupted for user stages, and that everything is where they look for it. */
import { expect, test } from 'vitest'
import { type Part, partsOf, type RowCopy } from '../../../src/cuda/parts.ts'
import { compile } from '../../../src/pipeline/compile.ts'
import { definePipeline, type PipelineOptions } from '../../../src/pipeline/define.ts'
import { type UserStageOptions, VIEW_FIELDS } from '../../../src/pipeline/user-stage.ts'
import { makePlan } from '../../../src/placement/plan.ts'
import { GPU_MACHINE } from '../../fixtures/engine-models.ts'
import { gpuModel } from '../../fixtures/gpu-models.ts'

const UBATCH = 16
const HYBRID: PipelineOptions = { name: 'hybrid', executor: 'cuda', stages: { routedExperts: 'wasm' } }
const GPU: PipelineOptions = { name: 'gpu', executor: 'cuda' }
const model = gpuModel({ layers: 3 })

const at = (place: string, more: Partial<UserStageOptions> = {}): UserStageOptions => {
  const [when, stage] = place.split(' ') as ['before', 'head']
  return { name: `${place} ${more.steer ?? false}`, [when]: stage, module: '/tmp/x.mjs', ...more } as UserStageOptions
}

function partsWith(where: PipelineOptions, userStages: readonly UserStageOptions[], tokens: number) {
  const plan = makePlan(model, GPU_MACHINE, definePipeline({ ...where, userStages }), { threads: 1, contextTokens: 64, ubatch: UBATCH })
  const program = compile(model, plan).cuda!
  return { program, parts: partsOf(program, plan.cuda!.layers, plan.wasm?.arena, tokens) }
}

const stagesOf = (parts: readonly Part[]): string[] => parts.map(({ calls }) => calls.map(({ stage }) => stage).join(' '))

test.each([1, UBATCH])('without user stages there is one, with %i tokens', (tokens) => {
  const { program, parts } = partsWith(HYBRID, [], tokens)
  expect(parts).toEqual([{ first: 0, calls: program.calls, writes: [], users: [], slotReads: [], slotWrites: [] }])
})

test.each([HYBRID, GPU])('every call is in one of them, in order: $name', (where) => {
  for (const steer of [false, true]) {
    for (const tokens of [1, 5, UBATCH]) {
      const all = Object.keys(VIEW_FIELDS).map((place) => at(place, { steer }))
      const { program, parts } = partsWith(where, all, tokens)
      expect(parts.flatMap(({ calls }) => calls.map(({ stage, layer }) => [stage, layer]))).toEqual(
        program.calls.map(({ stage, layer }) => [stage, layer]),
      )
      expect(parts.map(({ first }) => first)).toEqual(parts.map((_, index) => parts.slice(0, index).flatMap(({ calls }) => calls).length))
      expect(parts.flatMap(({ users }) => users.map(({ user, layer }) => [user, layer]))).toEqual(
        program.calls.flatMap((call) => (call.stage === 'user' ? [[call.user, call.layer]] : [])),
      )
    }
  }
})

test('observers do not interrupt a step of few tokens, and what they see lies apart', () => {
  const { program, parts } = partsWith(GPU, [at('before attention'), at('after combine'), at('after router')], 2)
  expect(parts.length).toBe(1)
  const reads = parts[0]!.calls.flatMap((call) => (call.stage === 'user' ? call.reads : []))
  // x: before layers 0 and 1, once between 1 and 2, and behind 2; ids and weights of two layers
  expect(reads.map(({ rows }) => rows).toSorted()).toEqual([
    ...['expertIds', 'expertIds', 'expertWeights', 'expertWeights'],
    ...['x', 'x', 'x', 'x'],
  ])
  const places = reads.map(({ offset, bytes }): [number, number] => [offset, offset + bytes]).toSorted(([a], [b]) => a - b)
  for (const [index, [begin]] of places.entries()) expect(begin).toBeGreaterThanOrEqual(places[index - 1]?.[1] ?? program.results.step)
  expect(places.at(-1)![1]).toBeLessThanOrEqual(program.results.end)
})

test('observers of more tokens than there is room for interrupt it', () => {
  const { parts } = partsWith(GPU, [at('before attention')], UBATCH)
  expect(stagesOf(parts)).toEqual([
    'embed user',
    'attention denseFfn user',
    'attention router sharedExperts routedExperts combine user',
    'attention router sharedExperts routedExperts combine head',
  ])
  for (const { users } of parts.slice(0, 3))
    expect(users.map(({ fields }) => fields[0]!.offset)).toEqual([parts[0]!.users[0]!.fields[0]!.offset])
})

test('what steers interrupts it, and is written back before the next part, to where the rows are', () => {
  const places = ['after router', 'after routedExperts', 'before combine']
  const copies = (list: readonly RowCopy[]): string[] => list.map(({ rows, slot }) => (slot ? `${rows} of arena ${slot.arena}` : rows))
  for (const [where, onDevice] of [[GPU, true] as const, [HYBRID, false] as const]) {
    const { parts } = partsWith(
      where,
      places.map((place) => at(place, { steer: true, layers: [1] })),
      1,
    )
    expect(parts.map(({ users }) => users.length)).toEqual([1, 2, 0])
    const [first, second, third] = parts
    expect(first!.calls.flatMap((call) => (call.stage === 'user' ? copies(call.reads).map((each) => each.split(' ')[0]) : []))).toEqual([
      'expertIds',
      'expertWeights',
    ])
    expect(copies(onDevice ? second!.writes : first!.slotWrites)).toEqual([onDevice ? 'expertWeights' : 'expertWeights of arena 0'])
    expect(copies(third!.writes)).toEqual(onDevice ? ['routed', 'x'] : ['x'])
    expect(copies(second!.slotReads)).toEqual(onDevice ? [] : ['routed of arena 0'])
    expect(copies(second!.slotWrites)).toEqual(onDevice ? [] : ['routed of arena 0'])
  }
})
