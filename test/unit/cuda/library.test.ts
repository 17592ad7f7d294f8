/** The binding: koffi's view of the library, and what its statuses become. */
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { CUDA_ABI_VERSION } from '../../../src/abi/cuda.ts'
import { loadCudaLibrary, statusError } from '../../../src/cuda/library.ts'
import { codeOf } from '../../fixtures/engine-micro.ts'
import { standIn } from '../../fixtures/stand-in.ts'

test('every status has its code, and the library its word', () => {
  const codes = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10].map((status) => statusError(status, 'tcu_head').code)
  expect(codes).toEqual([
    'ERR_KERNEL',
    'ERR_FORMAT_UNSUPPORTED',
    'ERR_KERNEL',
    'ERR_MEMORY',
    'ERR_DEVICE_ABSENT',
    'ERR_DEVICE',
    'ERR_DEVICE_LOST',
    'ERR_TIMEOUT',
    'ERR_POISONED',
    'ERR_INTERNAL',
  ])
  expect(statusError(4, 'tcu_memory', 'asked for 7 bytes').message).toBe('tcu_memory: asked for 7 bytes')
})

test('a file that is no library, or that of somebody else, is refused', async () => {
  expect(await codeOf(loadCudaLibrary('/nowhere/libtandem-cuda.so'))).toBe('ERR_DEVICE_ABSENT')
  expect(await codeOf(loadCudaLibrary(fileURLToPath(import.meta.url)))).toBe('ERR_DEVICE_ABSENT')
  expect(await codeOf(loadCudaLibrary('libm.so.6'))).toBe('ERR_DEVICE_ABSENT')
})

test.skipIf(!standIn)('outputs are returned, failures are thrown with the text of the library', async () => {
  const { functions } = await loadCudaLibrary(standIn!.path)
  expect(functions.tcu_abi_version()).toBe(CUDA_ABI_VERSION)
  expect(functions.tcu_device_count()).toBe(1)
  const { name, bytes, freeBytes } = functions.tcu_device_info(0)
  expect(name.length).toBeGreaterThan(3)
  expect(bytes).toBeGreaterThanOrEqual(freeBytes)
  expect(() => functions.tcu_device_info(7)).toThrow(/^tcu_device_info: .{4}/)
  expect(() => functions.tcu_close(0n)).toThrow(expect.objectContaining({ code: 'ERR_KERNEL' }))
})

test.skipIf(!standIn)("addresses are those of the view's bytes", async () => {
  const { address } = await loadCudaLibrary(standIn!.path)
  const { buffer } = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true })
  const base = address(new Uint8Array(buffer))
  expect(base % 4096).toBe(0)
  expect(address(new Int32Array(buffer, 64, 1))).toBe(base + 64)
})
