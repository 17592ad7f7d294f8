/** The bundled model does its tasks: the quality meter for everything that is lossy. */
import { afterAll, beforeAll, expect, it } from 'vitest'
import { loadModel, POCKET_MODEL, type Engine } from '../../src/index.ts'
import { readTasks, scoreTasks } from './pocket-tasks.ts'

const CONCURRENCY = 32

let engine: Engine
beforeAll(async () => {
  engine = await loadModel(POCKET_MODEL, { contextTokens: 512, kvTokens: 512 * CONCURRENCY, sequences: CONCURRENCY })
})
afterAll(() => engine.close())

it('answers the held-out tasks: at least 98 % in all, 95 % in every family', { timeout: 600_000 }, async () => {
  const tasks = readTasks()
  const { accuracy, families } = await scoreTasks(engine, tasks, CONCURRENCY)
  console.log(`pocket: ${(accuracy * 100).toFixed(2)} % of ${tasks.length} tasks`, families)
  expect(tasks.length).toBeGreaterThanOrEqual(1000)
  expect(accuracy).toBeGreaterThanOrEqual(0.98)
  for (const [family, share] of Object.entries(families)) expect(share, family).toBeGreaterThanOrEqual(0.95)
})
