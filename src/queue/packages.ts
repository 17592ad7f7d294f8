/** bullmq and ioredis enter here and nowhere else, and only when a queue is asked for: to load them takes longer than to start a command. */
import type { Job, Queue, Worker, WorkerOptions } from 'bullmq'
import type { Redis } from 'ioredis'

export type { Job, Queue } from 'bullmq'
export type { Redis } from 'ioredis'

/** A worker that can be left to itself where `close` waits for a connection that is gone: nothing of it keeps the process alive then. */
export interface QueueTaker extends Worker {
  abandon(): void
}

/** The classes that are used. */
export interface Packages {
  readonly Queue: typeof Queue
  readonly Taker: new (name: string, work: (job: Job) => Promise<unknown>, options: WorkerOptions) => QueueTaker
  /** Thrown by a worker's function after it has given its job back. */
  readonly WaitingError: new () => Error
  readonly Redis: typeof Redis
}

export async function packages(): Promise<Packages> {
  const [bullmq, ioredis] = await Promise.all([import('bullmq'), import('ioredis')])
  class Taker extends bullmq.Worker implements QueueTaker {
    abandon(): void {
      // the timer that renews locks; `close` comes to it last
      void this.lockManager.close()
    }
  }
  return { Queue: bullmq.Queue, Taker, WaitingError: bullmq.WaitingError, Redis: ioredis.Redis }
}
