import { describe, expect, test } from 'vitest'
import { checkText } from '../../../src/cli/commands/doctor.ts'
import { type Check, checkCores, checkGpu, checkKernels, checkMemoryOf, checkNode, failed } from '../../../src/cli/doctor.ts'
import { TandemError } from '../../../src/errors.ts'
import { cli } from './cli-process.ts'

const GIB = 2 ** 30
const statusOf = ({ status }: Check): string => status

describe('what is well, what could be better, what is broken:', () => {
  test('Node', () => {
    expect(['26.1.0', '24.9.0', '22.12.0', '22.11.9', '20.0.0'].map((version) => checkNode(version).status)).toEqual([
      'ok',
      'warn',
      'warn',
      'fail',
      'fail',
    ])
  })

  test('cores and memory', () => {
    expect(checkCores(8, 4)).toEqual({ name: 'cores', status: 'ok', text: '4 physical, 8 logical' })
    expect(checkCores(1, 1).advice).toMatch(/more than one/)
    expect(checkMemoryOf({ memoryBytes: 64 * GIB, availableBytes: 60 * GIB }).status).toBe('ok')
    expect(checkMemoryOf({ memoryBytes: 64 * GIB, availableBytes: GIB })).toMatchObject({
      status: 'warn',
      text: '1.07 GB of 68.7 GB available',
    })
    // a small machine is not low on memory
    expect(checkMemoryOf({ memoryBytes: 2 * GIB, availableBytes: GIB }).status).toBe('ok')
  })

  test('kernels', () => {
    const found = { kernels: 'relaxed', notRevectorized: null, platform: 'linux-x64' } as const
    expect(checkKernels(found).map(statusOf)).toEqual(['ok', 'ok'])
    expect(checkKernels({ ...found, kernels: 'dot' })[0]).toMatchObject({ status: 'ok', text: 'relaxed SIMD, for AVX-VNNI' })
    expect(checkKernels({ ...found, kernels: 'simd', notRevectorized: 'no' }).map(statusOf)).toEqual(['warn', 'warn'])
    expect(checkKernels({ ...found, notRevectorized: 'needs x64', platform: 'darwin-arm64' }).map(statusOf)).toEqual(['ok', 'ok'])
  })

  test('GPU and driver', () => {
    const device = { index: 0, name: 'NVIDIA H100', bytes: 80 * GIB, freeBytes: 79 * GIB }
    const none = { devices: [], problem: 'no library: build it' }
    expect(checkGpu({ devices: [device] }, { version: '580.1', hasDevice: true })).toEqual([
      { name: 'driver', status: 'ok', text: 'NVIDIA 580.1' },
      { name: 'gpu', status: 'ok', text: 'NVIDIA H100, 84.8 GB of 85.9 GB free' },
    ])
    // nothing is wrong with a machine that has no GPU
    expect(checkGpu(none, { version: null, hasDevice: false }).map(statusOf)).toEqual(['ok', 'ok'])
    expect(checkGpu(none, { version: '580.1', hasDevice: true })[1]).toMatchObject({ status: 'warn', text: 'no library: build it' })
    expect(checkGpu(none, { version: '580.1', hasDevice: false })[1]!.advice).toMatch(/--gpus all/)
  })
})

test('a line has the mark, the name and what was found, the advice on a line of its own; strings of a file do no harm', () => {
  expect(checkText({ name: 'cores', status: 'warn', text: '1', advice: 'more' })).toBe('warn  cores      1\n                 -> more\n')
  expect(checkText(failed('model', new TandemError('ERR_GGUF_INVALID', 'a\u001B[31m\nb')))).toBe('fail  model      a [31m b\n')
})

test('this machine and the bundled model are well', async () => {
  const { code, stdout, stderr } = await cli(['doctor'])
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  expect(stdout).toMatch(/^(ok {3}|warn) +node +\S+\n[^]*\n(ok {3}|warn) +gpu [^]*\nok +model +"Tandem Pocket"[^]*\nok +pipeline +\w+/)
})

test('--json has every check; what is broken is exit 1 with its code', async () => {
  const { code, stdout, stderr } = await cli(['doctor', 'no-such-model.gguf', '--json'])
  const { ok, checks } = JSON.parse(stdout) as { ok: boolean; checks: Check[] }
  expect({ code, ok }).toEqual({ code: 1, ok: false })
  expect(checks.map(({ name }) => name)).toEqual(
    expect.arrayContaining(['node', 'v8', 'kernels', 'vectors', 'cores', 'memory', 'driver', 'gpu']),
  )
  expect(checks.at(-1)).toMatchObject({ name: 'model', status: 'fail', code: 'ERR_FILE_ACCESS' })
  expect(stderr).toMatch(/^error ERR_FILE_ACCESS: 1 of \d+ checks failed, first 'model': no-such-model\.gguf/)
})

test('a pipeline that cannot run here is told, with what it lacks', async () => {
  const { code, stdout } = await cli(['doctor', '--pipeline', 'gpu'], { env: { TANDEM_CUDA_LIBRARY: '/nowhere/lib.so' } })
  expect(code).toBe(1)
  expect(stdout).toMatch(/\nfail +pipeline +.*\/nowhere\/lib\.so/)
})
