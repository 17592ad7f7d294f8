/** Whole processes: they end by themselves, keep no threads or memory of closed engines, and take no time while idle. */
import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type MicroModel, microModel } from '../fixtures/engine-micro.ts'

const CHILD = fileURLToPath(new URL('../fixtures/engine-child.ts', import.meta.url))

let model: MicroModel
beforeAll(async () => {
  model = await microModel()
})
afterAll(() => model[Symbol.asyncDispose]())

/** Runs a mode of the child; fails when it does not end by itself. */
async function child(mode: 'kill' | 'cycles' | 'idle'): Promise<Record<string, never>> {
  const { stdout } = await promisify(execFile)(process.execPath, ['--expose-gc', CHILD, model.path, mode], { timeout: 50_000 })
  return JSON.parse(stdout) as Record<string, never>
}

interface Measured {
  readonly threads: number
  readonly rss: number
  readonly heap: number
}

describe('a process', () => {
  test('ends after a worker died and the engine was closed', async () => {
    expect(await child('kill')).toEqual({ codes: ['ERR_WORKER_DIED', 'ERR_WORKER_DIED'] })
  })

  test('has no more threads and no more memory after 20 engines, although it still holds them, closed', async () => {
    const { before, after } = (await child('cycles')) as unknown as { before: Measured; after: Measured }
    expect(after.threads).toBeLessThanOrEqual(before.threads)
    // the 20 engines had more than 4 MB of weights and 2 MB of touched buffers each
    expect(after.rss - before.rss).toBeLessThan(50e6)
    expect(after.heap - before.heap).toBeLessThan(10e6)
  })

  test('takes next to no time while its engine is idle', async () => {
    const { cores } = (await child('idle')) as unknown as { cores: number }
    // two workers that spin would take two cores
    expect(cores).toBeLessThan(0.2)
  })
})
