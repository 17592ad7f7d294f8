/** The ring's rules under random interleavings: producer and consumers are step machines over one block of shared words. */
import assert from 'node:assert/strict'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { POISON_WORDS } from '../../../src/ring/poison.ts'
import { Ring, ringWords } from '../../../src/ring/ring.ts'
import { sharedWords } from '../../fixtures/engine-ring-parties.ts'

const BASE = POISON_WORDS
const SLOT_WORDS = 3
const WAIT = { deadlineMs: 0, what: 'nothing: the tests claim only what is published' }

/** A ring with its slots, and what must be true of it counted in numbers that do not wrap. */
class World {
  readonly words: Int32Array<SharedArrayBuffer>
  readonly slots: Int32Array
  readonly ring: Ring
  readonly start: number
  published = 0
  readonly released: number[]
  lastCompleted = 0
  /** The sequence that the producer is writing, and how many words of it are written. */
  writing: { sequence: number; word: number } | undefined
  readonly reading: number[]

  constructor(depth: number, consumers: number, start: number) {
    this.words = sharedWords(BASE + ringWords(depth))
    this.words[BASE] = start
    this.words[BASE + 16] = start
    this.slots = new Int32Array(depth * SLOT_WORDS)
    this.ring = new Ring(this.words, BASE, depth, consumers)
    this.start = start
    this.released = Array.from({ length: consumers }, () => 0)
    this.reading = Array.from({ length: consumers }, () => 0)
  }

  get slowest(): number {
    return Math.min(...this.released)
  }

  wrapped(count: number): number {
    return (this.start + count) | 0
  }

  /** One small step of the producer; false when it has to wait. */
  produce(): boolean {
    const { ring } = this
    if (!this.writing) {
      const sequence = ring.tryClaim()
      // a slot is refused exactly while some consumer may still read it
      assert.equal(sequence !== undefined, this.published - this.slowest < ring.depth)
      if (sequence === undefined) return false
      assert.equal(sequence, this.wrapped(this.published + 1))
      this.writing = { sequence, word: 0 }
      return true
    }
    const { sequence, word } = this.writing
    if (word < SLOT_WORDS) {
      this.slots[ring.slotOf(sequence) * SLOT_WORDS + word] = Math.imul(sequence, word + 1)
      this.writing.word++
      return true
    }
    ring.publish(sequence)
    this.published++
    this.writing = undefined
    assert.equal(ring.published, sequence)
    return true
  }

  /** One small step of a consumer; false when it has to wait. */
  consume(consumer: number): boolean {
    const { ring } = this
    const next = this.released[consumer]! + 1
    if (next > this.published) return false
    const sequence = this.wrapped(next)
    ring.claim(sequence, WAIT)
    const word = this.reading[consumer]!
    if (word < SLOT_WORDS) {
      assert.equal(this.slots[ring.slotOf(sequence) * SLOT_WORDS + word], Math.imul(sequence, word + 1))
      this.reading[consumer] = word + 1
      return true
    }
    const isLast = this.released.every((count, other) => other === consumer || count >= next)
    assert.equal(ring.release(sequence), isLast)
    this.released[consumer] = next
    this.reading[consumer] = 0
    return true
  }

  check(): void {
    const completed = (this.ring.completed - this.start) | 0
    assert.equal(completed, this.slowest)
    assert.ok(completed >= this.lastCompleted)
    this.lastCompleted = completed
  }

  /** Lets everyone run, in turn, until all have seen everything that was published. */
  drain(): void {
    while (this.writing) this.produce()
    for (let moved = true; moved; this.check()) moved = this.released.map((_, consumer) => this.consume(consumer)).includes(true)
    assert.deepEqual(
      this.released,
      this.released.map(() => this.published),
    )
    assert.equal(this.ring.completed, this.wrapped(this.published))
  }
}

const starts = fc.oneof(
  fc.constant(0),
  // just before the largest int32, and just before the wrap of the slot number
  fc.integer({ min: 0, max: 12 }).map((before) => 2 ** 31 - 1 - before),
  fc.integer({ min: 1, max: 12 }).map((before) => -before),
  fc.integer(),
)

const worlds = fc.record({
  depth: fc.constantFrom(1, 2, 4, 8),
  consumers: fc.integer({ min: 1, max: 4 }),
  start: starts,
  turns: fc.array(fc.nat(), { minLength: 20, maxLength: 400 }),
})

describe('ring under random interleavings', () => {
  test('no slot is overwritten before all have released it, and everyone sees every sequence once, in order', () => {
    fc.assert(
      fc.property(worlds, ({ depth, consumers, start, turns }) => {
        const world = new World(depth, consumers, start)
        for (const turn of turns) {
          // the producer gets as many turns as all consumers together, so that the ring is often full
          const party = turn % (consumers * 2)
          if (party < consumers) world.consume(party)
          else world.produce()
          world.check()
        }
        world.drain()
      }),
      { numRuns: 400, seed: 7 },
    )
  })

  test('sequence numbers that follow each other have slots that follow each other, across both wraps', () => {
    fc.assert(
      fc.property(fc.constantFrom(1, 2, 4, 16), starts, (depth, start) => {
        const ring = new Ring(sharedWords(ringWords(depth)), 0, depth, 1)
        for (let count = 0; count < 40; count++) {
          expect(ring.slotOf((start + count + 1) | 0)).toBe((ring.slotOf((start + count) | 0) + 1) % depth)
        }
      }),
      { seed: 7 },
    )
  })

  test('a ring that cannot work is refused', () => {
    const make = (depth: number, consumers: number) => (): Ring => new Ring(sharedWords(ringWords(16)), 0, depth, consumers)
    for (const depth of [0, -1, 3, 6]) expect(make(depth, 1)).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }))
    expect(make(2, 0)).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }))
  })
})
