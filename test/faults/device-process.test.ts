/** Whole processes with a device: they end by themselves, keep no threads or memory of closed engines, and take no time while idle. */
import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type MicroModel, microModel } from '../fixtures/engine-micro.ts'
import { standIn } from '../fixtures/stand-in.ts'

const CHILD = fileURLToPath(new URL('../fixtures/engine-child.ts', import.meta.url))

let model: MicroModel
beforeAll(async () => {
  model = await microModel()
})
afterAll(() => model[Symbol.asyncDispose]())

async function child<T>(mode: 'cycles' | 'idle', pipeline: string): Promise<T> {
  const { stdout } = await promisify(execFile)(process.execPath, ['--expose-gc', CHILD, model.path, mode, pipeline], { timeout: 50_000 })
  return JSON.parse(stdout) as T
}

interface Measured {
  readonly threads: number
  readonly rss: number
  readonly heap: number
}

describe.skipIf(!standIn).each(['hybrid', 'gpu'])('a process with pipeline %s', (pipeline) => {
  test('has no more threads and no more memory after 20 engines, although it still holds them, closed', async () => {
    const { before, after } = await child<{ before: Measured; after: Measured }>('cycles', pipeline)
    expect(after.threads).toBeLessThanOrEqual(before.threads)
    expect(after.rss - before.rss).toBeLessThan(50e6)
    expect(after.heap - before.heap).toBeLessThan(10e6)
  })

  test('takes next to no time while its engine is idle', async () => {
    expect((await child<{ cores: number }>('idle', pipeline)).cores).toBeLessThan(0.2)
  })
})
