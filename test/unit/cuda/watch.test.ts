/** What the CUDA worker does while a step runs: it wakes sleepers for the device, and never waits forever. */
import { Worker } from 'node:worker_threads'
import { expect, test } from 'vitest'
import { CONTROL, HANDOFF } from '../../../src/abi/control.ts'
import { Watch } from '../../../src/cuda/watch.ts'
import { TandemError } from '../../../src/errors.ts'

const PUBLISHED = CONTROL.handoff + HANDOFF.published
const COMPLETED = CONTROL.handoff + HANDOFF.completed
const FINISHED = CONTROL.handoff + HANDOFF.finished

function watched(options: { spins?: number; deadlineMs?: number; checkDevice?: () => void } = {}): {
  words: Int32Array<SharedArrayBuffer>
  watch: Watch
} {
  const words = new Int32Array(new SharedArrayBuffer(4096))
  const { spins = 0, deadlineMs = 60, checkDevice = () => undefined } = options
  return { words, watch: new Watch({ words, spins, deadlineMs, checkDevice }) }
}

function codeOfWait(watch: Watch): string {
  try {
    watch.until(() => false)
  } catch (error) {
    return TandemError.from(error).code
  }
  return 'did not throw'
}

/** A device in another thread: writes words, `ms` apart, and never notifies. */
function device(words: Int32Array<SharedArrayBuffer>, writes: readonly (readonly [index: number, value: number])[], ms: number): Worker {
  const code = `const { words, writes, ms } = require('node:worker_threads').workerData
    for (const [index, value] of writes) {
      Atomics.wait(words, 1000, 0, ms)
      Atomics.store(words, index, value)
    }`
  return new Worker(code, { eval: true, workerData: { words, writes, ms } })
}

test('a sleeper on the published word is woken by a look', async () => {
  const { words, watch } = watched()
  const sleeper = Atomics.waitAsync(words, PUBLISHED, 0, 10_000)
  expect(watch.look()).toBe(false)
  Atomics.store(words, PUBLISHED, 1)
  expect(watch.look()).toBe(true)
  expect(await sleeper.value).toBe('ok')
})

test.each([0, 100_000])('waits as long as something goes on, with %i spins', async (spins) => {
  const { words, watch } = watched({ spins, deadlineMs: 400 })
  const writes = [1, 2, 3].flatMap((count) => [[PUBLISHED, count] as const, [COMPLETED, count] as const])
  const worker = device(words, [...writes, [FINISHED, 1]], 100)
  watch.until(() => watch.finished === 1)
  expect([watch.completed, Atomics.load(words, PUBLISHED)]).toEqual([3, 3])
  await worker.terminate()
})

test.each([0, 1000])('gives up after the deadline without any change, with %i spins', (spins) => {
  const { words, watch } = watched({ spins })
  expect(codeOfWait(watch)).toBe('ERR_TIMEOUT')
  // also while the pool is at work
  Atomics.store(words, PUBLISHED, 1)
  expect(codeOfWait(watch)).toBe('ERR_TIMEOUT')
})

test('sees poison', () => {
  const { words, watch } = watched({ deadlineMs: 10_000 })
  Atomics.store(words, CONTROL.poison, 1)
  expect(codeOfWait(watch)).toBe('ERR_POISONED')
})

test.each([0, 100_000])('asks for the health of the device about every millisecond, with %i spins', (spins) => {
  let checks = 0
  const checkDevice = (): void => {
    if (++checks === 5) throw new TandemError('ERR_DEVICE', 'broken')
  }
  const { watch } = watched({ spins, deadlineMs: 10_000, checkDevice })
  const start = performance.now()
  expect(codeOfWait(watch)).toBe('ERR_DEVICE')
  expect(performance.now() - start).toBeGreaterThan(4)
})
