import { expect, test } from 'vitest'
import { blocksOf, stagesOf } from '../../../src/cli/stage-table.ts'
import { describeModel } from '../../../src/model/describe.ts'
import { compile } from '../../../src/pipeline/compile.ts'
import { makePlan } from '../../../src/placement/plan.ts'
import type { Plan } from '../../../src/placement/types.ts'
import type { Program } from '../../../src/pipeline/program.ts'
import cpu from '../../../pipelines/cpu.ts'
import { tinyGlm4moe } from '../../fixtures/build-gguf.ts'
import { modelFile } from '../../fixtures/model-file.ts'

function planned(layers: number, arenaBytes?: number): { plan: Plan; program: Program } {
  const model = describeModel(modelFile(tinyGlm4moe({ layers })))
  const machine = { cores: 2, availableBytes: 1e9, executors: new Set(['wasm']) }
  const plan = makePlan(model, machine, cpu, { contextTokens: 32, sequences: 1, ubatch: 4, arenaBytes })
  return { plan, program: compile(model, plan) }
}

test('every call is listed, and all weight matrices are accounted for', () => {
  const { plan, program } = planned(3)
  const stages = stagesOf(program, plan)
  expect(stages.map(({ stage }) => stage)).toEqual(program.calls.map(({ stage }) => stage))
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
  const { plan, program } = planned(9)
  const firsts = blocksOf(stagesOf(program, plan)).map(([layers, stage]) => [layers, stage])
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

test('layers in several arenas show the range, and what crosses is counted', () => {
  const one = planned(9).plan
  const { plan, program } = planned(9, Math.ceil(one.arena.end + 0.6 * (one.arenas[0]! - one.arena.end)))
  expect(plan.arenas.length).toBeGreaterThan(1)
  const rows = blocksOf(stagesOf(program, plan))
  const last = plan.arenas.length - 1
  expect(rows.find(([layers, stage]) => layers === '1-8' && stage === 'attention')![3]).toBe(`0-${last}`)
  expect(rows.at(-1)![1]).toMatch(/^transfer, \d+ between arenas$/)
})
