/** Where every byte goes: nothing overlaps, nothing is forgotten, nothing is larger than an arena may be. */
import { cacheBytes, KV_ROW_TOKENS } from '../../../src/abi/kernels.ts'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { FORMATS, packedBytes } from '../../../src/abi/formats.ts'
import { TandemError } from '../../../src/errors.ts'
import type { Model } from '../../../src/model/types.ts'
import type { LimitOptions } from '../../../src/placement/limits.ts'
import { placedMatrices, planLoads } from '../../../src/placement/loads.ts'
import { makePlan } from '../../../src/placement/plan.ts'
import type { PlacedFeedForward, PlacedMatrix, PlacedVector, Plan } from '../../../src/placement/types.ts'
import cpu from '../../../pipelines/cpu.ts'
import { gpuModels } from '../../fixtures/gpu-models.ts'
import { MACHINE, tinyModel, tinyModels, wholeOnPool } from '../../fixtures/engine-models.ts'

const LIMITS = { threads: 1, contextTokens: 64, ubatch: 4, sequences: 2 }

interface Region {
  readonly what: string
  readonly arena: number
  readonly begin: number
  readonly end: number
}

const vectorRegion = ({ vector, arena, offset }: PlacedVector): Region => ({
  what: vector.tensor.name,
  arena,
  begin: offset,
  end: offset + vector.length * 4,
})

const matrixRegion = (placed: PlacedMatrix): Region => ({
  what: `${placed.matrix.tensor.name} ${placed.expertBegin}`,
  arena: placed.arena,
  begin: placed.offset,
  end: placed.offset + (placed.expertEnd - placed.expertBegin) * placed.expertBytes,
})

const ffnRegions = (ffn: PlacedFeedForward | undefined): Region[] => (ffn ? [ffn.gate, ffn.up, ffn.down].map(matrixRegion) : [])

/** Everything that a plan places, the prefix of every arena included. */
function regionsOf(model: Model, { limits, ...parts }: Plan): Region[] {
  const plan = wholeOnPool({ limits, ...parts })
  const { kvHeads, headDim } = model.hyper
  const { scales, integers } = cacheBytes(limits.kvTokens, kvHeads, headDim)
  const layers = plan.layers.flatMap((layer, index) => [
    ...Object.values(layer.attention).map((placed) => ('vector' in placed ? vectorRegion(placed) : matrixRegion(placed))),
    vectorRegion(layer.ffnNorm),
    { what: `keys ${index}`, arena: layer.arena, begin: layer.keyCache - scales, end: layer.keyCache + integers },
    { what: `values ${index}`, arena: layer.arena, begin: layer.valueCache - scales, end: layer.valueCache + integers },
    ...ffnRegions(layer.dense),
    ...ffnRegions(layer.shared),
    ...(layer.router ? [matrixRegion(layer.router.gate)] : []),
    ...(layer.router?.selectionBias ? [vectorRegion(layer.router.selectionBias)] : []),
    ...layer.routed.flatMap(ffnRegions),
  ])
  const ends = [
    matrixRegion(plan.embedding),
    vectorRegion(plan.outputNorm),
    ...(plan.head === plan.embedding ? [] : [matrixRegion(plan.head)]),
  ]
  return [...plan.arenas.map((_, arena) => ({ what: 'prefix', arena, begin: 0, end: plan.arena.end })), ...ends, ...layers]
}

/** Bytes that every arena begins with. */
const prefixOf = (model: Model, limits: LimitOptions): number => wholeOnPool(makePlan(model, MACHINE, cpu, limits)).arena.end

/** A plan, or undefined where the limit is too small for the model. */
function planWithin(model: Model, arenaBytes: number): Plan | undefined {
  try {
    return makePlan(model, MACHINE, cpu, { ...LIMITS, arenaBytes })
  } catch (error) {
    expect(TandemError.is(error) && error.code).toBe('ERR_ARENA_LIMIT')
    return undefined
  }
}

const cases = fc.record({ model: tinyModels, room: fc.integer({ min: 0, max: 800_000 }) })

function withPlans(check: (model: Model, plan: Plan, arenaBytes: number) => void): { plans: number; several: number } {
  const seen = { plans: 0, several: 0 }
  fc.assert(
    fc.property(cases, ({ model, room }) => {
      const arenaBytes = prefixOf(model, LIMITS) + room
      const plan = planWithin(model, arenaBytes)
      if (!plan) return
      seen.plans++
      if (wholeOnPool(plan).arenas.length > 1) seen.several++
      check(model, plan, arenaBytes)
    }),
    { seed: 7, numRuns: 150 },
  )
  // the cases would prove little if most of them were one arena, or none
  expect(seen.plans).toBeGreaterThan(75)
  expect(seen.several).toBeGreaterThan(25)
  return seen
}

describe('placement', () => {
  test('no two things overlap, all are aligned and inside their arena, and no arena is over the limit', () => {
    withPlans((model, plan, arenaBytes) => {
      const regions = regionsOf(model, plan)
      wholeOnPool(plan).arenas.forEach((bytes, arena) => {
        expect(bytes).toBeLessThanOrEqual(arenaBytes)
        expect(bytes % 65_536).toBe(0)
        const inside = regions.filter((region) => region.arena === arena).sort((a, b) => a.begin - b.begin)
        inside.forEach(({ what, begin, end }, index) => {
          expect(begin % 64, what).toBe(0)
          expect(end, what).toBeLessThanOrEqual(inside[index + 1]?.begin ?? bytes)
        })
      })
    })
  })

  test('large matrices have pages of their own, where a file may be mapped', () => {
    let mappable = 0
    const pageOf = (byte: number): number => Math.floor(byte / 4096)
    fc.assert(
      fc.property(gpuModels, fc.integer({ min: 8, max: 40 }), (model, pages) => {
        const plan = planWithin(model, prefixOf(model, LIMITS) + pages * 65_536)
        if (!plan) return
        const regions = regionsOf(model, plan)
        for (const placed of placedMatrices(wholeOnPool(plan))) {
          const { what, arena, begin, end } = matrixRegion(placed)
          expect(placed.hasOwnPages, what).toBe(end - begin >= 65_536)
          if (!placed.hasOwnPages) continue
          mappable++
          expect(begin % 4096, what).toBe(0)
          const others = regions.filter((region) => region.arena === arena && region.begin !== begin && region.end > region.begin)
          for (const other of others)
            expect(pageOf(other.end - 1) < pageOf(begin) || pageOf(other.begin) > pageOf(end - 1), what).toBe(true)
        }
      }),
      { seed: 9, numRuns: 60 },
    )
    expect(mappable).toBeGreaterThan(200)
  })

  test('every expert of every layer is placed once, its three matrices together', () => {
    withPlans((model, plan) => {
      wholeOnPool(plan).layers.forEach(({ routed }, index) => {
        let next = 0
        for (const { gate, up, down } of routed) {
          for (const { arena, expertBegin, expertEnd } of [gate, up, down]) {
            expect([arena, expertBegin, expertEnd]).toEqual([gate.arena, next, gate.expertEnd])
          }
          expect(gate.expertEnd).toBeGreaterThan(next)
          next = gate.expertEnd
        }
        expect(next).toBe(model.layers[index]!.routed?.gate.experts ?? 0)
      })
    })
  })

  test('what is loaded is every tensor of the file, once, and fills what was placed', () => {
    withPlans((model, plan) => {
      const loads = planLoads(wholeOnPool(plan))
      const read = new Map<string, number>()
      for (const { tensor, fileBytes } of loads) read.set(tensor, (read.get(tensor) ?? 0) + fileBytes)
      const wanted = new Map([...model.file.tensors.values()].map(({ name, bytes }) => [name, bytes]))
      expect(new Map([...read].sort())).toEqual(new Map([...wanted].sort()))

      const regions = regionsOf(model, plan).filter(({ what }) => what !== 'prefix' && !/^(keys|values) /.test(what))
      const written = loads
        .map(({ tensor, arena, offset, rows, columns, format, isVector }) => {
          const name = Object.values(FORMATS).find(({ id }) => id === format)!
          return { what: tensor, arena, begin: offset, end: offset + (isVector ? columns * 4 : packedBytes(name, rows, columns)) }
        })
        .sort((a, b) => a.arena - b.arena || a.begin - b.begin)
      for (const [index, load] of written.entries()) {
        const next = written[index + 1]
        if (next?.arena === load.arena) expect(load.end).toBeLessThanOrEqual(next.begin)
        expect(regions.some(({ arena, begin, end }) => arena === load.arena && begin <= load.begin && load.end <= end)).toBe(true)
      }
      const size = (list: readonly Region[]): number => list.reduce((sum, { begin, end }) => sum + end - begin, 0)
      expect(size(written)).toBe(size(regions))
    })
  })

  test('a tied head is the embedding, and its norm lies beside it', () => {
    const tied = wholeOnPool(makePlan(tinyModel({}, true), MACHINE, cpu, LIMITS))
    expect(tied.head).toBe(tied.embedding)
    expect(tied.outputNorm.arena).toBe(tied.embedding.arena)
    const own = wholeOnPool(makePlan(tinyModel(), MACHINE, cpu, LIMITS))
    expect(own.head).not.toBe(own.embedding)
    expect(own.outputNorm.arena).toBe(own.head.arena)
  })

  test('what the plan says about bytes adds up', () => {
    withPlans((model, plan) => {
      const [device, ...others] = plan.devices
      expect(others).toEqual([])
      expect(device!.bytes).toBe(wholeOnPool(plan).arenas.reduce((sum, bytes) => sum + bytes, 0))
      expect(device!.weights + device!.kvCache + device!.buffers).toBe(device!.bytes)
      const { layers, kvHeads, headDim } = model.hyper
      // room for whole rows
      const tokens = Math.ceil(plan.limits.kvTokens / KV_ROW_TOKENS) * KV_ROW_TOKENS
      expect(device!.kvCache).toBe(2 * layers * tokens * kvHeads * (headDim * 2 + 4))
    })
  })
})

describe('what fits in no arena', () => {
  const model = tinyModel({ vocabulary: 4000 })
  const end = prefixOf(model, LIMITS)

  test('the buffers of a step', () => {
    expect(() => makePlan(model, MACHINE, cpu, { ...LIMITS, arenaBytes: end - 65_536 })).toThrow(
      expect.objectContaining({ code: 'ERR_ARENA_LIMIT', message: expect.stringContaining('ubatch') }),
    )
  })

  test('the embedding', () => {
    expect(() => makePlan(model, MACHINE, cpu, { ...LIMITS, arenaBytes: end + 70_000 })).toThrow(
      expect.objectContaining({ code: 'ERR_ARENA_LIMIT', message: expect.stringContaining('the token embedding') }),
    )
  })

  test('a layer, because of its cache', () => {
    const limits = { ...LIMITS, contextTokens: 256, kvTokens: 256 * 64, sequences: 64, ubatch: 64, outputs: 1 }
    const large = prefixOf(tinyModel(), limits)
    expect(() => makePlan(tinyModel(), MACHINE, cpu, { ...limits, arenaBytes: large + 300_000 })).toThrow(
      expect.objectContaining({ code: 'ERR_ARENA_LIMIT', message: expect.stringContaining('KV cache') }),
    )
  })

  test('one expert', () => {
    const wide = tinyModel({ ffnExpert: 2048, sharedExperts: 0 })
    const prefix = prefixOf(wide, LIMITS)
    expect(() => makePlan(wide, MACHINE, cpu, { ...LIMITS, arenaBytes: prefix + 500_000 })).toThrow(
      expect.objectContaining({ code: 'ERR_ARENA_LIMIT', message: expect.stringMatching(/one expert of layer 1/) }),
    )
  })
})
