/** No wait hangs: deadlines end it with ERR_TIMEOUT, poison with ERR_POISONED, in every place that waits. */
import { describe, expect, test } from 'vitest'
import { FAN_IN_WORDS, FanIn } from '../../../src/ring/fan-in.ts'
import { isPoisoned, poison, POISON_WORDS } from '../../../src/ring/poison.ts'
import { Ring, ringWords } from '../../../src/ring/ring.ts'
import { waitWhile, waitWhileAsync } from '../../../src/ring/wait.ts'
import { sharedWords, startParty } from '../../fixtures/engine-ring-parties.ts'

const BASE = POISON_WORDS
const soon = { deadlineMs: 20, what: 'something that never comes' }
const never = { deadlineMs: Infinity, what: 'poison' }
const timeout = expect.objectContaining({ code: 'ERR_TIMEOUT', message: expect.stringContaining('something that never comes') })
const poisoned = expect.objectContaining({ code: 'ERR_POISONED' })
const party = { base: BASE, rounds: 1, start: 0, depth: 1, parties: 2, data: sharedWords(1) }

function ring(): Ring {
  return new Ring(sharedWords(BASE + ringWords(2)), BASE, 2, 1)
}

describe('deadlines', () => {
  test.each([0, 10])('a blocking wait with %i spins ends with ERR_TIMEOUT', (spins) => {
    expect(() => waitWhile(sharedWords(32), BASE, 0, { ...soon, spins })).toThrow(timeout)
  })

  test('a wait of the main thread ends with ERR_TIMEOUT', async () => {
    await expect(waitWhileAsync(sharedWords(32), BASE, 0, soon)).rejects.toThrow(timeout)
  })

  test('a claim, a completion and a barrier end with ERR_TIMEOUT', async () => {
    expect(() => ring().claim(1, soon)).toThrow(timeout)
    await expect(ring().whenCompleted(1, soon)).rejects.toThrow(timeout)
    expect(() => new FanIn(sharedWords(BASE + FAN_IN_WORDS), BASE, 2).arriveAndWait(soon)).toThrow(timeout)
  })

  test('a value that has changed is returned without waiting, even when the deadline is over', async () => {
    const words = sharedWords(32)
    words[BASE] = 5
    expect(waitWhile(words, BASE, 4, { deadlineMs: 0, what: 'nothing' })).toBe(5)
    expect(await waitWhileAsync(words, BASE, 4, { deadlineMs: 0, what: 'nothing' })).toBe(5)
  })

  test('a change wakes a wait of the main thread', async () => {
    const words = sharedWords(32)
    const waiting = waitWhileAsync(words, BASE, 0, never)
    Atomics.store(words, BASE, 3)
    Atomics.notify(words, BASE)
    expect(await waiting).toBe(3)
  })
})

describe('poison', () => {
  test('the first to poison is told so, and it stays', () => {
    const words = sharedWords(32)
    expect(isPoisoned(words)).toBe(false)
    expect(poison(words, [BASE])).toBe(true)
    expect(poison(words, [BASE])).toBe(false)
    expect(isPoisoned(words)).toBe(true)
  })

  test('it wakes sleepers of the main thread', async () => {
    const words = sharedWords(BASE + ringWords(2))
    const waiting = Array.from({ length: 3 }, () => waitWhileAsync(words, BASE, 0, never))
    const completion = new Ring(words, BASE, 2, 1).whenCompleted(1, never)
    poison(words, new Ring(words, BASE, 2, 1).waitWords)
    for (const each of [...waiting, completion]) await expect(each).rejects.toThrow(poisoned)
  })

  test('it wakes sleeping threads, also those whose notification was lost', async () => {
    for (const waitWords of [[BASE], []]) {
      const words = sharedWords(32)
      const sleeper = startParty({ ...party, role: 'sleeper', words, wait: never })
      await sleeper.started
      poison(words, waitWords)
      expect(await sleeper.problem).toBe('ERR_POISONED')
    }
  })

  test('it takes threads out of a barrier that they go through without end', async () => {
    for (const spins of [0, 50]) {
      const words = sharedWords(BASE + FAN_IN_WORDS)
      const threads = Array.from({ length: 2 }, () => startParty({ ...party, role: 'endless-barrier', words, wait: { ...never, spins } }))
      await Promise.all(threads.map(({ started }) => started))
      await new Promise((resolve) => setTimeout(resolve, 20))
      poison(words, [new FanIn(words, BASE, 2).epochWord])
      expect(await Promise.all(threads.map(({ problem }) => problem))).toEqual(['ERR_POISONED', 'ERR_POISONED'])
    }
  })

  test('it stops a party that never has to wait for others', () => {
    const words = sharedWords(BASE + FAN_IN_WORDS)
    const barrier = new FanIn(words, BASE, 1)
    barrier.arriveAndWait(never)
    poison(words, [barrier.epochWord])
    expect(() => barrier.arriveAndWait(never)).toThrow(poisoned)
  })

  test('nobody begins to wait on poisoned words', async () => {
    const words = sharedWords(BASE + ringWords(1))
    poison(words, [])
    expect(() => waitWhile(words, BASE, 0, never)).toThrow(poisoned)
    await expect(waitWhileAsync(words, BASE, 0, never)).rejects.toThrow(poisoned)
    expect(() => new Ring(words, BASE, 1, 1).claim(1, never)).toThrow(poisoned)
  })
})
