/** Beside a device, which here is the stand-in for a GPU, the pool maps its experts and the device is loaded from the model's file. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { loadModel } from '../../../src/load.ts'
import { allLogits, codeOf, SMALL, someTokens } from '../../fixtures/engine-micro.ts'
import { isMapped, packedMicroModel, type PackedMicroModel } from '../../fixtures/sidecar-models.ts'
import { hasDevice } from '../../fixtures/stand-in.ts'

const TOKENS = someTokens(40)

describe.skipIf(!hasDevice)('with a device', () => {
  let model: PackedMicroModel
  beforeAll(async () => {
    model = await packedMicroModel()
  })
  afterAll(() => model[Symbol.asyncDispose]())

  test('hybrid: the same logits, and the experts are mapped', async () => {
    const plain = await loadModel(model.path, { ...SMALL, pipeline: 'hybrid' })
    const expected = await allLogits(plain, TOKENS)
    await plain.close()
    const progress: { done: number; total: number }[] = []
    const engine = await loadModel(model.path, {
      ...SMALL,
      pipeline: 'hybrid',
      sidecar: 'auto',
      onProgress: (each) => void progress.push(each),
    })
    if (process.platform === 'linux') expect(isMapped(model.sidecar)).toBe(true)
    expect(await allLogits(engine, TOKENS)).toEqual(expected)
    expect(progress.at(-1)!.done).toBe(progress.at(-1)!.total)
    await engine.close()
  })

  test('gpu has nothing to map: ERR_ARGUMENT', async () => {
    expect(await codeOf(loadModel(model.path, { ...SMALL, pipeline: 'gpu', sidecar: 'auto' }))).toBe('ERR_ARGUMENT')
  })
})
