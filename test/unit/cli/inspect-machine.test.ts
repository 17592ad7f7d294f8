import { expect, test } from 'vitest'
import { countPhysicalCores } from '../../../src/engine/machine.ts'
import { cli } from './cli-process.ts'

test('--machine --json tells what there is to run on, and why the kernels are not revectorised', async () => {
  const { code, stdout } = await cli(['inspect', '--machine', '--json'], { env: { TANDEM_REVECTORIZE: '0' } })
  const machine = JSON.parse(stdout) as Record<string, unknown>
  expect({ code, ...machine }).toMatchObject({
    code: 0,
    node: process.versions.node,
    v8: process.versions.v8,
    kernels: expect.stringMatching(/^(dot|relaxed)$/),
    revectorized: false,
    notRevectorized: 'switched off by TANDEM_REVECTORIZE=0',
  })
  expect(machine['physicalCores']).toBeGreaterThanOrEqual(1)
  expect(machine['physicalCores']).toBeLessThanOrEqual(machine['cores'] as number)
})

test('--machine for a person', async () => {
  const { stdout } = await cli(['inspect', '--machine'])
  expect(stdout).toMatch(/\ncores +\d+ physical, \d+ logical\n[^]*\nkernels +(dot|relaxed|simd)\nrevectorised +(yes|no: .+)/)
})

test('physical cores: two threads of one core count once, processors that are not allowed do not', () => {
  const files =
    (allowed: string): ((path: string) => string) =>
    (path) => {
      if (path === '/proc/self/status') return `Name:\tnode\nCpus_allowed_list:\t${allowed}\n`
      const cpu = Number(/cpu(\d+)/.exec(path)![1])
      return `${cpu % 4},${(cpu % 4) + 4}\n`
    }
  expect(countPhysicalCores(files('0-7'))).toBe(4)
  expect(countPhysicalCores(files('0-1,4-5'))).toBe(2)
  expect(countPhysicalCores(files('3,6-7'))).toBe(2)
  expect(
    countPhysicalCores(() => {
      throw new Error('no such file')
    }),
  ).toBeUndefined()
})
