/** The barrier between real threads: nobody passes before all have arrived, and what was written before is seen after. */
import { describe, expect, test } from 'vitest'
import { FAN_IN_WORDS, FanIn } from '../../../src/ring/fan-in.ts'
import { POISON_WORDS } from '../../../src/ring/poison.ts'
import { sharedWords, startParty } from '../../fixtures/engine-ring-parties.ts'

const BASE = POISON_WORDS
const ROUNDS = 3000

describe('fan-in between threads', () => {
  test.each([
    { parties: 2, spins: 0, epoch: 0 },
    { parties: 3, spins: 0, epoch: 2 ** 31 - 1000 },
    { parties: 3, spins: 50, epoch: -1000 },
  ])('$parties parties with $spins spins, epoch $epoch: nobody passes early', async ({ parties, spins, epoch }) => {
    const words = sharedWords(BASE + FAN_IN_WORDS)
    words[new FanIn(words, BASE, parties).epochWord] = epoch
    const data = sharedWords(2 * ROUNDS + 1)
    const wait = { spins, deadlineMs: 30_000, what: 'the others' }
    const threads = Array.from({ length: parties }, () =>
      startParty({ role: 'barrier', words, base: BASE, wait, rounds: ROUNDS, start: 0, depth: 1, parties, data }),
    )
    expect(await Promise.all(threads.map(({ problem }) => problem))).toEqual(threads.map(() => undefined))
    expect(data.subarray(0, ROUNDS).every((arrivals) => arrivals === parties)).toBe(true)
    expect(words[new FanIn(words, BASE, parties).epochWord]).toBe((epoch + ROUNDS) | 0)
  })

  test('a single party passes at once and does what the last one does', () => {
    const barrier = new FanIn(sharedWords(BASE + FAN_IN_WORDS), BASE, 1)
    let turns = 0
    for (let round = 0; round < 5; round++) barrier.arriveAndWait({ deadlineMs: 0, what: 'nobody' }, () => turns++)
    expect(turns).toBe(5)
  })
})
