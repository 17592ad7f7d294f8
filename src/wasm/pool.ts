/** The pool's threads. The only importer of Piscina: it owns the threads, shared memory carries the work. */
import { Piscina } from 'piscina'
import { TandemError } from '../errors.ts'
import type { ServeResult, ServeTask } from './protocol.ts'

/** Threads that each run one long `serve` task. */
export class ServePool {
  readonly #piscina: Piscina

  constructor(threads: number) {
    const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js'
    this.#piscina = new Piscina({
      filename: new URL(`./serve.${extension}`, import.meta.url).href,
      minThreads: threads,
      maxThreads: threads,
      concurrentTasksPerWorker: 1,
      idleTimeout: Infinity,
      // Piscina's own hand-off blocks a thread's event loop between tasks; our workers have one task each, so there is nothing to gain
      atomics: 'disabled',
    })
    // A thread that fails without a task, such as the one that Piscina starts for a dead one, is no news: the task's end was.
    this.#piscina.on('error', () => undefined)
  }

  /** Starts a worker's task. Rejects with `ERR_WORKER_DIED` when the thread ends before the task does. */
  async serve(task: ServeTask): Promise<ServeResult> {
    try {
      // Piscina's type of it is what TypeScript makes of an overload, not a list
      const transferList = (task.userStages ? [task.userStages.port] : []) as NonNullable<Parameters<Piscina['run']>[1]>['transferList']
      return (await this.#piscina.run(task, { transferList })) as ServeResult
    } catch (cause) {
      throw new TandemError('ERR_WORKER_DIED', `worker ${task.worker} of the pool ended unexpectedly: ${TandemError.from(cause).message}`, {
        cause,
      })
    }
  }

  /** Ends all threads, whatever they are doing. */
  async destroy(): Promise<void> {
    await this.#piscina.destroy()
  }

  /** Ends one thread without warning, as a crash would: for fault tests. */
  async kill(index: number): Promise<void> {
    await this.#piscina.threads[index]?.terminate()
  }
}
