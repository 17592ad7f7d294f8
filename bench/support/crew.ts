/**
 * Worker threads that do the same job on their shares, round after round, called through the product's own ring. The caller blocks until all are done,
 * so that a round is what tinybench times.
 */
import { once } from 'node:events'
import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'
import { FAN_IN_WORDS } from '../../src/ring/fan-in.ts'
import { Ring, ringWords } from '../../src/ring/ring.ts'
import { waitWhile } from '../../src/ring/wait.ts'
import type { ArenaHandle, Product } from './arena.ts'

/** What the threads do in a round. */
export type Job =
  | { readonly kind: 'nothing' }
  | { readonly kind: 'barriers'; readonly rounds: number }
  | { readonly kind: 'product'; readonly arena: ArenaHandle; readonly product: Product }
  | { readonly kind: 'read'; readonly memory: WebAssembly.Memory; readonly begin: number; readonly bytes: number }

/** What a worker thread gets. */
export interface CrewData {
  readonly job: Job
  readonly words: Int32Array<SharedArrayBuffer>
  readonly thread: number
  readonly threads: number
  /** As long as a waiter looks before it sleeps. */
  readonly spins: number
}

/** The control words: poison, then the ring, then a fan-in. */
export const RING_BASE = 16
export const RING_DEPTH = 2
export const FAN_IN_BASE = RING_BASE + ringWords(RING_DEPTH)
const WORDS = FAN_IN_BASE + FAN_IN_WORDS

export const WAIT = { deadlineMs: 60_000, what: 'a benchmark round' } as const

/** See the file's header. */
export class Crew {
  readonly #ring: Ring
  readonly #words: Int32Array<SharedArrayBuffer>
  readonly #workers: readonly Worker[]
  readonly #spins: number

  private constructor(words: Int32Array<SharedArrayBuffer>, workers: readonly Worker[], spins: number) {
    this.#words = words
    this.#ring = new Ring(words, RING_BASE, RING_DEPTH, workers.length)
    this.#workers = workers
    this.#spins = spins
  }

  /** Starts the threads; `spins` 0 makes everyone sleep at once. */
  static async start(threads: number, job: Job, spins: number): Promise<Crew> {
    const words = new Int32Array(new SharedArrayBuffer(WORDS * 4))
    const workers = Array.from({ length: threads }, (_, thread) => {
      const workerData: CrewData = { job, words, thread, threads, spins }
      return new Worker(new URL('crew-worker.ts', import.meta.url), { workerData })
    })
    await Promise.all(workers.map((worker) => once(worker, 'message')))
    // where the workers have every core, a caller that spins would take one from them
    return new Crew(words, workers, threads < availableParallelism() ? spins : 0)
  }

  #publish(): number {
    const sequence = this.#ring.tryClaim()
    if (sequence === undefined) throw new Error('a round was begun before the last one ended')
    this.#ring.publish(sequence)
    return sequence
  }

  /** One round; blocks this thread. */
  round(): void {
    const before = this.#ring.completed
    this.#publish()
    waitWhile(this.#words, this.#ring.waitWords[1]!, before, { ...WAIT, spins: this.#spins })
  }

  /** One round; waits as the product's main thread does. */
  async roundAsync(): Promise<void> {
    await this.#ring.whenCompleted(this.#publish(), WAIT)
  }

  async stop(): Promise<void> {
    await Promise.all(this.#workers.map((worker) => worker.terminate()))
  }
}
