/** Limits and the machine: what a caller asks for is checked before anything else, and what does not fit is known before loading. */
import { describe, expect, test } from 'vitest'
import { KV_BLOCK_TOKENS } from '../../../src/abi/kernels.ts'
import { type LimitOptions, resolveLimits } from '../../../src/placement/limits.ts'
import { checkMemory, makePlan } from '../../../src/placement/plan.ts'
import cpu from '../../../pipelines/cpu.ts'
import gpu from '../../../pipelines/gpu.ts'
import hybrid from '../../../pipelines/hybrid.ts'
import { MACHINE, tinyModel } from '../../fixtures/engine-models.ts'

const model = tinyModel()
const { hyper } = model
const resolve = (options: LimitOptions = {}): ReturnType<typeof resolveLimits> => resolveLimits(hyper, MACHINE, options)

describe('limits', () => {
  test('have defaults that suit the model and the machine', () => {
    const limits = resolve()
    expect(limits).toMatchObject({ contextTokens: hyper.contextTokens, threads: MACHINE.cores, sequences: 32, arenaBytes: 2 ** 32 })
    expect(limits.ubatch).toBeGreaterThanOrEqual(limits.sequences)
    expect(limits.kvTokens).toBeGreaterThanOrEqual(limits.contextTokens)
  })

  const NAMES = ['contextTokens', 'kvTokens', 'sequences', 'ubatch', 'outputs', 'threads', 'arenaBytes'] as const
  test.each(NAMES)('%s must be a whole number from 1, within reason', (name) => {
    for (const value of [0, -1, 1.5, Number.NaN, Infinity, 2 ** 33]) {
      expect(() => resolve({ [name]: value })).toThrow(
        expect.objectContaining({ code: 'ERR_ARGUMENT', message: expect.stringContaining(name) }),
      )
    }
    expect(resolve({ [name]: undefined })).toEqual(resolve())
  })

  test('a context beyond what the model was trained for is refused', () => {
    expect(() => resolve({ contextTokens: hyper.contextTokens + 1 })).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }))
  })

  test('the cache is whole blocks and has room for what was asked', () => {
    for (const contextTokens of [1, 31, 32, 33, 100]) {
      const { kvTokens } = resolve({ contextTokens })
      expect(kvTokens % KV_BLOCK_TOKENS).toBe(0)
      expect(kvTokens).toBeGreaterThanOrEqual(contextTokens)
    }
  })

  test('outputs are at most the tokens of a step', () => {
    expect(() => resolve({ outputs: 0 })).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }))
    expect(resolve({ ubatch: 4, outputs: 5 }).outputs).toBe(4)
    expect(resolve({ ubatch: 4, outputs: 4 }).outputs).toBe(4)
  })
})

describe('the machine', () => {
  test('memory that does not suffice is told with what is needed for what', () => {
    const plan = makePlan(model, MACHINE, cpu, { threads: 2 })
    const needed = plan.arenas.reduce((sum, bytes) => sum + bytes, 0)
    expect(() => checkMemory(plan, { ...MACHINE, availableBytes: needed })).toThrow(
      expect.objectContaining({ code: 'ERR_MEMORY', message: expect.stringMatching(/weights .* KV cache .* available/) }),
    )
    expect(() => checkMemory(plan, MACHINE)).not.toThrow()
  })

  test.each([hybrid, gpu])('pipeline $name needs an executor that is not there', (pipeline) => {
    expect(() => makePlan(model, MACHINE, pipeline)).toThrow(
      expect.objectContaining({ code: 'ERR_DEVICE_ABSENT', message: expect.stringContaining("'cuda'") }),
    )
  })
})
