/** What a plan counts for a device's buffers is what the library takes (src/placement/device-buffers.ts and cuda/buffers.cu). */
import { expect, test } from 'vitest'
import { shapeStruct } from '../../../src/cuda/bind.ts'
import { loadCudaLibrary } from '../../../src/cuda/library.ts'
import { planModel } from '../../../src/engine/load-model.ts'
import { POCKET_MODEL } from '../../../src/pocket-model.ts'
import { standIn } from '../../fixtures/stand-in.ts'

test
  .skipIf(!standIn)
  .each([
    { pipeline: 'gpu' },
    { pipeline: 'hybrid' },
    { pipeline: 'gpu', ubatch: 7, sequences: 5, contextTokens: 64 },
    { pipeline: 'hybrid', gpuExpertLayers: 2, ubatch: 100, sequences: 3 },
    { pipeline: 'gpu', activations: 'q16' as const },
  ])('%j', async (options) => {
  const { plan, programs } = await planModel(POCKET_MODEL, options)
  const { functions } = await loadCudaLibrary(standIn!.path)
  expect(functions.tcu_buffer_bytes(shapeStruct(plan.cuda!, programs.cuda!, 1000))).toBe(plan.cuda!.bufferBytes)
})
