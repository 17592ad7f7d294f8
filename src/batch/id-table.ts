/**
 * Ids of a job: which line each is on, and whether it has been answered. Open addressing over 128-bit digests in flat arrays: 21 bytes a slot,
 * so that a million ids take 44 MB whatever their lengths, and two different ids are taken for the same with a chance of 1 in 10^26.
 */
import { hash } from 'node:crypto'

const DIGEST_WORDS = 4
const FIRST_CAPACITY = 1 << 10
const MAX_LOAD = 0.7

/** See the file's header. */
export class IdTable {
  #digests = new Uint32Array(FIRST_CAPACITY * DIGEST_WORDS)
  /** Line of the id in a slot; 0: the slot is free. */
  #lines = new Uint32Array(FIRST_CAPACITY)
  #answered = new Uint8Array(FIRST_CAPACITY)
  #size = 0

  get size(): number {
    return this.#size
  }

  /** Adds an id that is on `line`, from 1. Returns the line that it is on already, or undefined when it is new. */
  add(id: string, line: number): number | undefined {
    const digest = digestOf(id)
    const slot = this.#slotOf(digest)
    if (this.#lines[slot] !== 0) return this.#lines[slot]
    this.#put(slot, digest, line, 0)
    if (++this.#size > this.#lines.length * MAX_LOAD) this.#double()
    return undefined
  }

  /** The line of an id; undefined when it was not added. */
  lineOf(id: string): number | undefined {
    return this.#lines[this.#slotOf(digestOf(id))] || undefined
  }

  isAnswered(id: string): boolean {
    return this.#answered[this.#slotOf(digestOf(id))] === 1
  }

  setAnswered(id: string): void {
    const slot = this.#slotOf(digestOf(id))
    if (this.#lines[slot] !== 0) this.#answered[slot] = 1
  }

  #put(slot: number, digest: Uint32Array, line: number, answered: number): void {
    this.#digests.set(digest, slot * DIGEST_WORDS)
    this.#lines[slot] = line
    this.#answered[slot] = answered
  }

  /** The slot that has the digest, or the free one where it belongs. */
  #slotOf(digest: Uint32Array): number {
    const mask = this.#lines.length - 1
    for (let slot = digest[0]! & mask; ; slot = (slot + 1) & mask) {
      if (this.#lines[slot] === 0) return slot
      const at = slot * DIGEST_WORDS
      if (digest.every((word, index) => this.#digests[at + index] === word)) return slot
    }
  }

  #double(): void {
    const [digests, lines, answered] = [this.#digests, this.#lines, this.#answered]
    const capacity = lines.length * 2
    this.#digests = new Uint32Array(capacity * DIGEST_WORDS)
    this.#lines = new Uint32Array(capacity)
    this.#answered = new Uint8Array(capacity)
    lines.forEach((line, slot) => {
      if (line === 0) return
      const digest = digests.subarray(slot * DIGEST_WORDS, (slot + 1) * DIGEST_WORDS)
      this.#put(this.#slotOf(digest), digest, line, answered[slot]!)
    })
  }
}

function digestOf(id: string): Uint32Array {
  // a character per byte: a million small buffers outside the heap would wait long for the garbage collector
  const bytes = hash('sha256', id, 'latin1')
  const word = (at: number): number =>
    bytes.charCodeAt(at) | (bytes.charCodeAt(at + 1) << 8) | (bytes.charCodeAt(at + 2) << 16) | (bytes.charCodeAt(at + 3) << 24)
  return Uint32Array.of(word(0), word(4), word(8), word(12))
}
