/** The ring between real threads: this thread produces without blocking, workers consume. */
import { describe, expect, test } from 'vitest'
import { POISON_WORDS } from '../../../src/ring/poison.ts'
import { Ring, ringWords } from '../../../src/ring/ring.ts'
import { type Party, sharedWords, startParty } from '../../fixtures/engine-ring-parties.ts'
import { SLOT_WORDS } from '../../fixtures/engine-ring-worker.ts'

const BASE = POISON_WORDS
const DEADLINE_MS = 30_000

interface Case {
  readonly depth: number
  readonly consumers: number
  readonly spins: number
  readonly start: number
}

const CASES: readonly Case[] = [
  { depth: 1, consumers: 3, spins: 0, start: 0 },
  { depth: 2, consumers: 2, spins: 0, start: 2 ** 31 - 1000 },
  { depth: 4, consumers: 3, spins: 50, start: -1000 },
]
const ROUNDS = 3000

describe('ring between threads', () => {
  test.each(CASES)('depth $depth, $consumers consumers, $spins spins, from $start: every slot arrives whole', async (each) => {
    const { depth, consumers, spins, start } = each
    const words = sharedWords(BASE + ringWords(depth))
    words[BASE] = start
    words[BASE + 16] = start
    const data = sharedWords(depth * SLOT_WORDS)
    const wait = { spins, deadlineMs: DEADLINE_MS, what: 'the producer' }
    const parties: Party[] = Array.from({ length: consumers }, () =>
      startParty({ role: 'consumer', words, base: BASE, wait, rounds: ROUNDS, start, depth, parties: consumers, data }),
    )
    const ring = new Ring(words, BASE, depth, consumers)
    for (let round = 1; round <= ROUNDS; round++) {
      let sequence = ring.tryClaim()
      if (sequence === undefined) {
        // the ring is full: its oldest slot is the next to come free
        await ring.whenCompleted((start + round - depth) | 0, { deadlineMs: DEADLINE_MS, what: 'the consumers' })
        sequence = ring.tryClaim()
      }
      expect(sequence).toBe((start + round) | 0)
      for (let word = 0; word < SLOT_WORDS; word++) data[ring.slotOf(sequence!) * SLOT_WORDS + word] = Math.imul(sequence!, word + 1)
      ring.publish(sequence!)
    }
    await ring.whenCompleted((start + ROUNDS) | 0, { deadlineMs: DEADLINE_MS, what: 'the consumers' })
    expect(await Promise.all(parties.map(({ problem }) => problem))).toEqual(parties.map(() => undefined))
    expect(ring.completed).toBe((start + ROUNDS) | 0)
  })
})
