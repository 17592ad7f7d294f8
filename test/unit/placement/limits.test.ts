/** Limits and the machine: what a caller asks for is checked before anything else, and what does not fit is known before loading. */
import { describe, expect, test } from 'vitest'
import { KV_BLOCK_TOKENS } from '../../../src/abi/kernels.ts'
import { type LimitOptions, resolveLimits } from '../../../src/placement/limits.ts'
import { checkMemory } from '../../../src/placement/memory.ts'
import { makePlan } from '../../../src/placement/plan.ts'
import cpu from '../../../pipelines/cpu.ts'
import gpu from '../../../pipelines/gpu.ts'
import hybrid from '../../../pipelines/hybrid.ts'
import { GPU_MACHINE, MACHINE, tinyModel } from '../../fixtures/engine-models.ts'
import { gpuModel } from '../../fixtures/gpu-models.ts'

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

  test('activations are q8 unless q16 is asked for', () => {
    expect(resolve().activations).toBe('q8')
    expect(resolve({ activations: undefined }).activations).toBe('q8')
    expect(resolve({ activations: 'q16' }).activations).toBe('q16')
    for (const activations of ['q4', '', 16, null] as unknown as 'q8'[]) {
      expect(() => resolve({ activations })).toThrow(
        expect.objectContaining({
          code: 'ERR_ARGUMENT',
          message: expect.stringMatching(/^activations must be q8 or q16, not ("|16|null)/),
        }),
      )
    }
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
    const needed = plan.wasm!.arenas.reduce((sum, bytes) => sum + bytes, 0)
    expect(() => checkMemory(plan, { ...MACHINE, availableBytes: needed })).toThrow(
      expect.objectContaining({ code: 'ERR_MEMORY', message: expect.stringMatching(/weights .* KV cache .* available/) }),
    )
    expect(() => checkMemory(plan, MACHINE)).not.toThrow()
  })

  test.each([hybrid, gpu])('pipeline $name needs a GPU that is not there, and says why and what to do', (pipeline) => {
    const message = /'cuda'.*\(no library: none was built\).*@tandem-moe\/cuda-linux-x64.*build:cuda.*TANDEM_CUDA_LIBRARY.*--pipeline cpu$/
    expect(() => makePlan(model, MACHINE, pipeline)).toThrow(
      expect.objectContaining({ code: 'ERR_DEVICE_ABSENT', message: expect.stringMatching(message) }),
    )
  })

  test('both memories are compared with what the plan takes there', () => {
    const plan = makePlan(gpuModel(), GPU_MACHINE, hybrid, { threads: 1, contextTokens: 64, ubatch: 4, sequences: 1 })
    expect(() => checkMemory(plan, GPU_MACHINE)).not.toThrow()
    const [host, device] = plan.devices
    const gpuWith = (freeBytes: number) => ({ ...GPU_MACHINE, devices: [{ ...GPU_MACHINE.devices[0]!, freeBytes }] })
    expect(() => checkMemory(plan, gpuWith(device!.bytes))).not.toThrow()
    expect(() => checkMemory(plan, gpuWith(device!.bytes - 1))).toThrow(
      expect.objectContaining({ code: 'ERR_MEMORY', message: expect.stringMatching(/GPU's part .* free on a GPU: lower the context/) }),
    )
    expect(() => checkMemory(plan, { ...GPU_MACHINE, availableBytes: host!.bytes })).toThrow(
      expect.objectContaining({ code: 'ERR_MEMORY', message: expect.stringMatching(/put more experts on the GPU/) }),
    )
  })
})
