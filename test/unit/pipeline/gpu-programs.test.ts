/** Programs of plans with a GPU: the order of its calls, and that every hand-off's entry of the pool's program can be run by itself. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { compile } from '../../../src/pipeline/compile.ts'
import type { CudaProgram, Programs } from '../../../src/pipeline/program.ts'
import type { PlacementOptions } from '../../../src/placement/options.ts'
import { makePlan } from '../../../src/placement/plan.ts'
import gpu from '../../../pipelines/gpu.ts'
import hybrid from '../../../pipelines/hybrid.ts'
import { GPU_MACHINE } from '../../fixtures/engine-models.ts'
import { gpuModel, gpuModels } from '../../fixtures/gpu-models.ts'

const LIMITS = { threads: 1, contextTokens: 64, ubatch: 4, sequences: 2 }
const model = gpuModel({ layers: 3, expertFormat: 'Q4_0' })

const programs = (pipeline: typeof gpu, options: PlacementOptions = {}, of = model): Programs =>
  compile(of, makePlan(of, GPU_MACHINE, pipeline, { ...LIMITS, ...options }))

const callsOf = (cuda: CudaProgram | undefined, layer: number): string =>
  cuda!.calls
    .filter((call) => call.layer === layer)
    .map(({ stage }) => stage)
    .join(' ')

describe('the GPU’s program', () => {
  test('has every stage of every layer, in order', () => {
    const { cuda, wasm } = programs(gpu)
    expect(wasm).toBeUndefined()
    expect(cuda!.calls.map(({ layer }) => layer)).toEqual([-1, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, -1])
    expect(callsOf(cuda, -1)).toBe('embed head')
    expect(callsOf(cuda, 0)).toBe('attention denseFfn')
    expect(callsOf(cuda, 2)).toBe('attention router sharedExperts routedExperts combine')
  })

  test('hands layers over, and computes the shared experts meanwhile', () => {
    const { cuda, wasm } = programs(hybrid, { gpuExpertLayers: 1 })
    expect(callsOf(cuda, 1)).toBe('attention router publish sharedExperts awaitRouted combine')
    expect(callsOf(cuda, 2)).toBe('attention router sharedExperts routedExperts combine')
    expect(wasm!.entries).toEqual([{ layer: 1, begin: 0, end: 1 }])
    expect(wasm!.ubatch).toBe(LIMITS.ubatch)
  })

  test('waits first without overlap', () => {
    const { cuda } = programs(hybrid, { overlap: false })
    expect(callsOf(cuda, 1)).toBe('attention router publish awaitRouted sharedExperts combine')
  })

  test('has no shared experts where the model has none', () => {
    const { cuda } = programs(hybrid, {}, gpuModel({ sharedExperts: 0 }))
    expect(callsOf(cuda, 1)).toBe('attention router publish awaitRouted combine')
  })

  test('is plain data, and so is the pool’s', () => {
    const both = programs(hybrid)
    expect(structuredClone(both)).toEqual(both)
    expect(JSON.parse(JSON.stringify(both))).toEqual(both)
  })
})

test('every entry of the pool reads what was handed over, and leaves the sum where the GPU looks for it', () => {
  let split = 0
  fc.assert(
    fc.property(gpuModels, fc.integer({ min: 3, max: 40 }), (each, pages) => {
      const arenaBytes = makePlan(each, GPU_MACHINE, hybrid, LIMITS).wasm!.arena.end + pages * 65_536
      let plan: ReturnType<typeof makePlan>
      try {
        plan = makePlan(each, GPU_MACHINE, hybrid, { ...LIMITS, arenaBytes })
      } catch (error) {
        expect(error).toMatchObject({ code: 'ERR_ARENA_LIMIT' })
        return
      }
      const { wasm, cuda } = compile(each, plan)
      expect(cuda!.calls.filter(({ stage }) => stage === 'publish')).toHaveLength(wasm!.entries!.length)
      let next = 0
      for (const { layer, begin, end } of wasm!.entries!) {
        expect(begin).toBe(next)
        next = end
        const home = plan.cuda!.layers[layer]!.handoff!.arena
        const current = new Map(['input', 'expertIds', 'expertWeights'].map((name) => [name, new Set([home])]))
        let experts = 0
        const calls = wasm!.calls.slice(begin, end)
        if (calls.length > 1) split++
        for (const call of calls) {
          if (call.stage === 'transfer') {
            for (const { name, offset, bytesPerToken } of call.buffers) {
              const what = /^(normed|records)/.test(name) ? 'input' : name
              expect(current.get(what), name).toContain(call.from)
              current.get(what)!.add(call.arena)
              expect(offset).toBeGreaterThan(0)
              expect(offset + bytesPerToken * LIMITS.ubatch).toBeLessThanOrEqual(wasm!.arena.end)
            }
            continue
          }
          expect(call).toMatchObject({ stage: 'routedExperts', layer, expertBegin: experts, isFirst: experts === 0 })
          if (call.stage !== 'routedExperts') continue
          for (const what of ['input', 'expertIds', 'expertWeights']) expect(current.get(what)).toContain(call.arena)
          if (!call.isFirst) expect(current.get('routed')).toContain(call.arena)
          current.set('routed', new Set([call.arena]))
          experts = call.expertEnd
        }
        expect(experts).toBe(each.hyper.experts)
        expect(current.get('routed')).toContain(home)
      }
      expect(next).toBe(wasm!.calls.length)
    }),
    { seed: 9, numRuns: 60 },
  )
  expect(split).toBeGreaterThan(5)
})
