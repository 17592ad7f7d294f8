/** A compiled program computes every stage of every layer once, and what a stage reads is in its arena. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Model } from '../../../src/model/types.ts'
import { compile } from '../../../src/pipeline/compile.ts'
import type { Program, StageCall } from '../../../src/pipeline/program.ts'
import { makePlan } from '../../../src/placement/plan.ts'
import type { Plan } from '../../../src/placement/types.ts'
import cpu from '../../../pipelines/cpu.ts'
import { MACHINE, tinyModel, tinyModels, wholeOnPool } from '../../fixtures/engine-models.ts'

const LIMITS = { threads: 1, contextTokens: 64, ubatch: 4, sequences: 2 }

/** Follows the data through the calls: which arena holds what is current. Fails when a stage would read something stale. */
function checkDataFlow(program: Program): void {
  const current = new Map<string, Set<number>>()
  const wrote = (name: string, arena: number): void => void current.set(name, new Set([arena]))
  const reads = (call: StageCall, ...names: string[]): void => {
    for (const name of names) expect(current.get(name), `${call.stage} reads ${name}`).toContain(call.arena)
  }
  for (const call of program.calls) {
    // user stages have a test of their own
    if (call.stage === 'user') continue
    if (call.stage === 'transfer') {
      for (const { name } of call.buffers) {
        expect(current.get(name), `transfer of ${name}`).toContain(call.from)
        current.get(name)!.add(call.arena)
      }
      continue
    }
    if (call.stage !== 'embed' && call.stage !== 'routedExperts' && call.stage !== 'sharedExperts') reads(call, 'x')
    if (call.stage === 'sharedExperts') reads(call, 'normed')
    if (call.stage === 'routedExperts') reads(call, 'normed', 'expertIds', 'expertWeights', ...(call.isFirst ? [] : ['routed']))
    if (call.stage === 'combine') reads(call, 'routed', ...(call.hasShared ? ['shared'] : []))
    const outputs = {
      embed: ['x'],
      attention: ['x'],
      denseFfn: ['x'],
      combine: ['x'],
      head: [],
      router: ['normed', 'expertIds', 'expertWeights'],
      sharedExperts: ['shared'],
      routedExperts: ['routed'],
    }[call.stage]
    for (const name of outputs) wrote(name, call.arena)
  }
}

/** Stages by layer, transfers and further groups of experts left out. */
function stagesOf(program: Program): string[] {
  return program.calls
    .filter((call) => call.stage !== 'transfer' && !(call.stage === 'routedExperts' && !call.isFirst))
    .map((call) => ('layer' in call ? `${call.layer} ${call.stage}` : call.stage))
}

function expectedStages(model: Model): string[] {
  return [
    'embed',
    ...model.layers.flatMap((layer, index) => {
      const experts = ['router', ...(layer.shared ? ['sharedExperts'] : []), 'routedExperts', 'combine']
      return ['attention', ...(layer.dense ? ['denseFfn'] : experts)].map((stage) => `${index} ${stage}`)
    }),
    'head',
  ]
}

function planWithin(model: Model, room: number): Plan | undefined {
  try {
    const { arena } = wholeOnPool(makePlan(model, MACHINE, cpu, LIMITS))
    return makePlan(model, MACHINE, cpu, { ...LIMITS, arenaBytes: arena.end + room })
  } catch {
    return undefined
  }
}

describe('compile', () => {
  test('every stage is there once, in order, and reads what is in its arena, whatever the arenas', () => {
    let transfers = 0
    let split = 0
    fc.assert(
      fc.property(tinyModels, fc.integer({ min: 0, max: 400_000 }), (model, room) => {
        const plan = planWithin(model, room)
        if (!plan) return
        const program = compile(model, plan).wasm!
        expect(stagesOf(program)).toEqual(expectedStages(model))
        checkDataFlow(program)
        if (program.calls.some(({ stage }) => stage === 'transfer')) transfers++
        const { layers } = wholeOnPool(plan)
        if (layers.some(({ routed }) => routed.length > 1)) split++
        // every group of experts of a layer is called once, in order
        layers.forEach(({ routed }, index) => {
          const groups = program.calls.filter((call) => call.stage === 'routedExperts' && call.layer === index)
          expect(groups).toMatchObject(routed.map(({ gate: { arena, expertBegin, expertEnd } }) => ({ arena, expertBegin, expertEnd })))
        })
      }),
      { seed: 7, numRuns: 200 },
    )
    expect(transfers).toBeGreaterThan(25)
    expect(split).toBeGreaterThan(10)
  })

  test('one arena needs no transfer', () => {
    const model = tinyModel()
    const { calls } = compile(model, makePlan(model, MACHINE, cpu, LIMITS)).wasm!
    expect(calls.filter(({ stage }) => stage === 'transfer')).toEqual([])
  })

  test('a program is plain data: it survives being cloned and printed', () => {
    const model = tinyModel()
    const programs = compile(model, makePlan(model, MACHINE, cpu, LIMITS))
    expect(structuredClone(programs)).toEqual(programs)
    expect(JSON.parse(JSON.stringify(programs))).toEqual(programs)
    expect(programs.cuda).toBeUndefined()
    expect(programs.wasm!.entries).toBeUndefined()
  })
})
