/** Which V8 may revectorise, what becomes of a wrong result, and what the flags leave behind. */
import { readFileSync } from 'node:fs'
import { cachedDataVersionTag } from 'node:v8'
import { describe, expect, test, vi } from 'vitest'
import { createArena, PAGE_BYTES } from '../../../src/ring/arena.ts'
import { compileKernels, instantiateKernels, named, prepare } from '../../../src/wasm/kernels.ts'
import { Bench, SELF_TEST, SELF_TEST_BYTES } from '../../../src/wasm/self-test.ts'
import { revectorizeFacts, whyNotRevectorized, withTierUp } from '../../../src/wasm/v8-flags.ts'

const bytes = readFileSync(new URL('../../../wasm/dist/kernels-relaxed.wasm', import.meta.url))
const why = whyNotRevectorized(revectorizeFacts())

describe('revectorised code', () => {
  const NODE_26 = { v8: '14.6.202.34-node.34', arch: 'x64', cpuFlags: new Set(['avx2']), wish: undefined }

  test('runs on Node 26, x64 with AVX2', () => {
    expect(whyNotRevectorized(NODE_26)).toBeUndefined()
    expect(whyNotRevectorized({ ...NODE_26, cpuFlags: undefined })).toBeUndefined()
  })

  test.each([
    ['Node 24, which computes wrong results', { v8: '13.6.233.17-node.53' }, /V8 13\.6/],
    ['Node 22', { v8: '12.4.254.21-node.57' }, /V8 12\.4/],
    ['a V8 that nobody has checked', { v8: '14.60.1' }, /V8 14\.60/],
    ['ARM', { arch: 'arm64' }, /arm64/],
    ['a processor without AVX2', { cpuFlags: new Set(['avx']) }, /no AVX2/],
    ['TANDEM_REVECTORIZE=0', { wish: '0' }, /TANDEM_REVECTORIZE/],
  ])('does not run with %s', (_, change, reason) => {
    expect(whyNotRevectorized({ ...NODE_26, ...change })).toMatch(reason)
  })

  test('is tested with inputs that every kernel accepts', () => {
    const start = 2 * PAGE_BYTES
    const memory = createArena(start + SELF_TEST_BYTES)
    const bench = new Bench(instantiateKernels(new WebAssembly.Module(bytes), memory, start, PAGE_BYTES), memory, start)
    for (const each of SELF_TEST) {
      const result = bench.run(each)
      expect(bench.failures, `${each.name}: ${Buffer.from(result.subarray(0, 80)).toString('latin1')}`).toEqual([])
      expect(new Set(result).size, each.name).toBeGreaterThan(4)
    }
  })

  test.skipIf(why !== undefined)('passes the self-test', async () => {
    expect((await prepare(bytes, undefined)).notRevectorized).toBeUndefined()
  })

  test.skipIf(why !== undefined)('that is wrong in one bit is not used, and a warning tells', async () => {
    const warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => undefined)
    const at = SELF_TEST.findIndex(({ name }) => name === 'matmul Q4_0')
    const { notRevectorized, module } = await prepare(bytes, undefined, (results) => {
      results[at]![100]! ^= 1
      return results
    })
    expect(notRevectorized).toMatch(/failed the self-test in 1 of \d+ cases, first in 'matmul Q4_0'/)
    expect(WebAssembly.Module.customSections(module, 'tandem')).toHaveLength(1)
    expect(warn).toHaveBeenCalledOnce()
    expect(warn.mock.calls[0]![0]).toContain('matmul Q4_0')
    warn.mockRestore()
  })
})

describe('the host program', () => {
  test('has its flags back afterwards, also when the work throws', () => {
    withTierUp(true, () => undefined)
    const before = cachedDataVersionTag()
    expect(withTierUp(true, cachedDataVersionTag)).not.toBe(before)
    expect(() =>
      withTierUp(true, () => {
        throw new Error('stop')
      }),
    ).toThrow('stop')
    expect(cachedDataVersionTag()).toBe(before)
  })

  test('does not share code with the kernels: their bytes have a name of their own', () => {
    expect(Buffer.compare(named(bytes, 'a'), bytes)).not.toBe(0)
    expect(WebAssembly.Module.customSections(new WebAssembly.Module(named(bytes, 'a')), 'a')).toHaveLength(1)
  })

  test('gets the same module every time', async () => {
    expect(await compileKernels()).toBe(await compileKernels())
  })
})
