/** The pool's arenas where it has the routed experts alone: what the GPU reaches lies in a small prefix, experts of a layer stay together. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { activationOf, FORMATS } from '../../../src/abi/formats.ts'
import { recordBytes } from '../../../src/abi/kernels.ts'
import type { Model } from '../../../src/model/types.ts'
import { planLoads } from '../../../src/placement/loads.ts'
import { makePlan } from '../../../src/placement/plan.ts'
import type { ArenaLayout, Plan } from '../../../src/placement/types.ts'
import cpu from '../../../pipelines/cpu.ts'
import hybrid from '../../../pipelines/hybrid.ts'
import { GPU_MACHINE } from '../../fixtures/engine-models.ts'
import { gpuModel, gpuModels } from '../../fixtures/gpu-models.ts'

const LIMITS = { threads: 2, contextTokens: 64, ubatch: 4, sequences: 2 }
const ABSENT = ['step', 'angles', 'x', 'q', 'k', 'v', 'attended', 'attentionParts', 'routerLogits', 'shared', 'logits'] as const

const RECORDS = ['q8x32', 'q8x256', 'q16x32', 'q16x256'] as const

/** The parts of a prefix: [what, offset, bytes]. */
function partsOf({ hyper }: Model, { limits }: Plan, at: ArenaLayout): [string, number, number][] {
  const tokens = limits.ubatch
  const pairs = tokens * hyper.expertsUsed
  return [
    ['workers', at.workers, limits.threads * at.workerBytes],
    ['normed', at.normed, tokens * hyper.hidden * 4],
    ...RECORDS.map((format): [string, number, number] => [format, at.records[format], tokens * recordBytes(format, hyper.hidden)]),
    ['expertIds', at.expertIds, pairs * 4],
    ['expertWeights', at.expertWeights, pairs * 4],
    ['ffnHidden', at.ffnHidden, pairs * hyper.ffnExpert * 4],
    ...RECORDS.map((format): [string, number, number] => [
      `hidden ${format}`,
      at.ffnRecords[format],
      pairs * recordBytes(format, hyper.ffnExpert),
    ]),
    ['routed', at.routed, tokens * hyper.hidden * 4],
  ]
}

describe('the prefix', () => {
  test('has no overlaps, whole pages, and what the experts’ formats want', () => {
    fc.assert(
      fc.property(gpuModels, fc.constantFrom('q8', 'q16'), (model, activations) => {
        const plan = makePlan(model, GPU_MACHINE, hybrid, { ...LIMITS, activations })
        const { arena } = plan.wasm!
        expect(arena.end % 4096).toBe(0)
        const parts = partsOf(model, plan, arena)
          .filter(([, offset]) => offset > 0)
          .toSorted((a, b) => a[1] - b[1])
        for (const [index, [what, offset, bytes]] of parts.entries()) {
          expect(offset % 64, what).toBe(0)
          expect(offset + bytes, what).toBeLessThanOrEqual(parts[index + 1]?.[1] ?? arena.end)
        }
        const names = parts.map(([what]) => what)
        const experts = model.layers.flatMap(({ routed }) => (routed ? [routed] : []))
        const inputs = new Set<string>(experts.map(({ gate }) => activationOf(FORMATS[gate.tensor.format], activations)))
        const hiddens = new Set<string>(experts.map(({ down }) => activationOf(FORMATS[down.tensor.format], activations)))
        expect(names.includes('normed')).toBe(inputs.has('f32'))
        for (const records of RECORDS) {
          expect(names.includes(records)).toBe(inputs.has(records))
          expect(names.includes(`hidden ${records}`)).toBe(hiddens.has(records))
        }
        for (const what of ['workers', 'expertIds', 'expertWeights', 'ffnHidden', 'routed']) expect(names).toContain(what)
        for (const what of ABSENT) expect(arena[what], what).toBe(0)
      }),
      { seed: 3, numRuns: 40 },
    )
  })

  test('is smaller than that of a pool that has the whole model', () => {
    const model = gpuModel({ vocabulary: 40_000, expertFormat: 'Q4_0' })
    const limits = { ...LIMITS, threads: 1, ubatch: 128, outputs: 32 }
    const whole = makePlan(model, GPU_MACHINE, cpu, limits).wasm!.arena.end
    expect(makePlan(model, GPU_MACHINE, hybrid, limits).wasm!.arena.end).toBeLessThan(whole / 2)
  })
})

describe('arenas of experts', () => {
  test('hold every layer once, together where one arena has room for it', () => {
    let together = 0
    let apart = 0
    fc.assert(
      fc.property(gpuModels, fc.integer({ min: 1, max: 60 }), (model, pages) => {
        const { end } = makePlan(model, GPU_MACHINE, hybrid, LIMITS).wasm!.arena
        const arenaBytes = end + pages * 65_536
        let plan: Plan
        try {
          plan = makePlan(model, GPU_MACHINE, hybrid, { ...LIMITS, arenaBytes })
        } catch (error) {
          expect(error).toMatchObject({ code: 'ERR_ARENA_LIMIT' })
          return
        }
        const { wasm } = plan
        expect(wasm!.layers.map(({ layer }) => layer)).toEqual(model.layers.filter(({ routed }) => routed).map(({ index }) => index))
        const room = Math.floor(arenaBytes / 65_536) * 65_536 - end
        for (const { routed } of wasm!.layers) {
          const bytes = routed.reduce(
            (sum, ffn) =>
              sum +
              [ffn.gate, ffn.up, ffn.down].reduce(
                (each, { expertBytes, expertBegin, expertEnd }) => each + expertBytes * (expertEnd - expertBegin),
                0,
              ),
            0,
          )
          if (routed.length === 1) together++
          else {
            apart++
            // each of the three may lose a page before it and the rest of its last one
            expect(bytes).toBeGreaterThan(room - 3 * 2 * 4096)
          }
          expect(routed[0]!.gate.expertBegin).toBe(0)
          routed.forEach(({ gate }, index) => expect(gate.expertEnd).toBe(routed[index + 1]?.gate.expertBegin ?? gate.matrix.experts))
        }
        for (const bytes of wasm!.arenas) expect(bytes).toBeLessThanOrEqual(arenaBytes)
        for (const { arena, offset } of planLoads(wasm!)) {
          expect(offset).toBeGreaterThanOrEqual(end)
          expect(offset).toBeLessThan(wasm!.arenas[arena]!)
        }
      }),
      { seed: 5, numRuns: 80 },
    )
    expect(together).toBeGreaterThan(30)
    expect(apart).toBeGreaterThan(10)
  })
})
