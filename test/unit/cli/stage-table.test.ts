import { expect, test } from 'vitest'
import { blocksOf, stagesOf } from '../../../src/cli/stage-table.ts'
import { describeModel } from '../../../src/model/describe.ts'
import { compile } from '../../../src/pipeline/compile.ts'
import { makePlan } from '../../../src/placement/plan.ts'
import type { Plan } from '../../../src/placement/types.ts'
import type { Programs } from '../../../src/pipeline/program.ts'
import cpu from '../../../pipelines/cpu.ts'
import hybrid from '../../../pipelines/hybrid.ts'
import { tinyGlm4moe } from '../../fixtures/build-gguf.ts'
import { GPU_MACHINE, MACHINE } from '../../fixtures/engine-models.ts'
import { gpuModel } from '../../fixtures/gpu-models.ts'
import { modelFile } from '../../fixtures/model-file.ts'

function planned(layers: number, arenaBytes?: number): { plan: Plan; programs: Programs } {
  const model = describeModel(modelFile(tinyGlm4moe({ layers })))
  const plan = makePlan(model, MACHINE, cpu, { contextTokens: 32, sequences: 1, ubatch: 4, arenaBytes })
  return { plan, programs: compile(model, plan) }
}

test('every call is listed, and all weight matrices are accounted for', () => {
  const { plan, programs } = planned(3)
  const stages = stagesOf({ plan, programs })
  expect(stages.map(({ stage }) => stage)).toEqual(programs.wasm!.calls.map(({ stage }) => stage))
  const matrices = stages.reduce((sum, { bytes }) => sum + bytes, 0)
  // norms and biases are the difference
  expect(plan.devices[0]!.weights - matrices).toBeGreaterThan(0)
  expect(plan.devices[0]!.weights - matrices).toBeLessThan(0.1 * plan.devices[0]!.weights)
  expect(stages[1]).toEqual({
    stage: 'attention',
    layer: 0,
    arena: 0,
    executor: 'wasm',
    formats: ['F32'],
    bytes: 4 * (2 * 64 * 32 + 2 * 32 * 32),
  })
})

test('layers that are alike are one block', () => {
  const whole = planned(9)
  const firsts = blocksOf(stagesOf(whole)).map(([layers, stage]) => [layers, stage])
  expect(firsts).toEqual([
    ['layers', 'stage'],
    ['', 'embed'],
    ['0', 'attention'],
    ['', 'denseFfn'],
    ['1-8', 'attention'],
    ['', 'router'],
    ['', 'sharedExperts'],
    ['', 'routedExperts'],
    ['', 'combine'],
    ['', 'head'],
  ])
})

test('what the GPU hands over stands where it does, on the executor that runs it', () => {
  const model = gpuModel({ layers: 4, expertFormat: 'Q4_0', format: 'Q8_0' })
  const options = { contextTokens: 64, sequences: 1, ubatch: 4, gpuExpertLayers: 1 }
  const plan = makePlan(model, GPU_MACHINE, hybrid, options)
  const rows = stagesOf({ plan, programs: compile(model, plan) })
  const ofLayer = (layer: number): string[] =>
    rows.filter((row) => row.layer === layer).map(({ stage, executor }) => `${stage} ${executor}`)
  expect(ofLayer(2)).toEqual([
    'attention cuda',
    'router cuda',
    'publish cuda',
    'routedExperts wasm',
    'sharedExperts cuda',
    'awaitRouted cuda',
    'combine cuda',
  ])
  expect(ofLayer(3)).toEqual(['attention cuda', 'router cuda', 'sharedExperts cuda', 'routedExperts cuda', 'combine cuda'])
  const experts = rows.filter(({ stage }) => stage === 'routedExperts')
  // raw blocks on the GPU, panels on the pool: Q4_0 is as large in both
  const bytes = 3 * model.hyper.experts * 256 * 144
  expect(experts.map((row) => [row.arena, row.formats, row.bytes])).toEqual([
    [0, ['Q4_0'], bytes],
    [0, ['Q4_0'], bytes],
    [null, ['Q4_0'], bytes],
  ])
  const table = blocksOf(rows).map((cells) => cells.slice(0, 4))
  expect(table).toContainEqual(['1-2', 'attention', 'cuda', ''])
  expect(table).toContainEqual(['', 'routedExperts', 'wasm', '0'])
  expect(table).toContainEqual(['', 'routedExperts', 'cuda', ''])
})

test('layers in several arenas show the range, and what crosses is counted', () => {
  const one = planned(9).plan.wasm!
  const { plan, programs } = planned(9, Math.ceil(one.arena.end + 0.6 * (one.arenas[0]! - one.arena.end)))
  expect(plan.wasm!.arenas.length).toBeGreaterThan(1)
  const rows = blocksOf(stagesOf({ plan, programs }))
  const last = plan.wasm!.arenas.length - 1
  expect(rows.find(([layers, stage]) => layers === '1-8' && stage === 'attention')![3]).toBe(`0-${last}`)
  expect(rows.at(-1)![1]).toMatch(/^transfer, \d+ between arenas$/)
})
