/** Looking for GPUs never throws: it finds some, or says what is missing. */
import { afterEach, expect, test, vi } from 'vitest'
import { locateCudaLibrary } from '../../../src/cuda/locate.ts'
import { probeCuda } from '../../../src/cuda/probe.ts'
import { standIn } from '../../fixtures/stand-in.ts'

afterEach(() => {
  vi.unstubAllEnvs()
  standIn?.fault('none')
})

test.skipIf(!standIn)('the library that the environment names is used', async () => {
  expect(locateCudaLibrary()).toEqual({ path: standIn!.path })
  const { devices, problem } = await probeCuda()
  expect(problem).toBeUndefined()
  expect(devices.map(({ index }) => index)).toEqual([0])
  expect(devices[0]!.bytes).toBeGreaterThan(0)
})

test('a name of nothing is told', async () => {
  vi.stubEnv('TANDEM_CUDA_LIBRARY', '/nowhere/lib.so')
  const { devices, problem } = await probeCuda()
  expect(devices).toEqual([])
  expect(problem).toBe('no library: TANDEM_CUDA_LIBRARY names /nowhere/lib.so, which is not there')
})

test('a library that does not load is told', async () => {
  vi.stubEnv('TANDEM_CUDA_LIBRARY', process.execPath)
  const { devices, problem } = await probeCuda()
  expect(devices).toEqual([])
  expect(problem).toMatch(/^the CUDA library cannot be loaded|^.* has no tcu_/)
})

test.skipIf(!standIn)('a driver without devices is told', async () => {
  standIn!.fault('absent')
  const { devices, problem } = await probeCuda()
  expect(devices).toEqual([])
  expect(problem).toMatch(/^tcu_device_count: /)
})
