/** The main thread's end of a CUDA worker: starts the thread and calls its functions. The only importer of Comlink on this side. */
import { Worker } from 'node:worker_threads'
import { type Remote, transfer, wrap } from 'comlink'
import { TandemError } from '../errors.ts'
import { delay } from '../ring/wait.ts'
import type { Handle } from './library.ts'
import type { CudaTask, CudaWorkerApi, Outcome } from './protocol.ts'

/** How long the end of a thread is waited for, ms: one that is inside the driver ends when the driver returns. */
const TERMINATE_MS = 1000

/** One worker thread. */
export class CudaWorkerClient {
  /** Resolves when the thread has ended, with the reason. */
  readonly whenDead: Promise<TandemError>
  readonly #worker: Worker
  readonly #port: MessagePort
  readonly #api: Remote<CudaWorkerApi>
  #isDead = false

  constructor() {
    const { port1, port2 } = new MessageChannel()
    const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js'
    this.#port = port1
    this.#worker = new Worker(new URL(`./worker.${extension}`, import.meta.url), {
      name: 'tandem-cuda',
      workerData: { port: port2 },
      transferList: [port2],
    })
    this.#api = wrap<CudaWorkerApi>(port1)
    this.whenDead = new Promise((resolve) => {
      const died = (cause: unknown, why: string): void => {
        this.#isDead = true
        resolve(new TandemError('ERR_WORKER_DIED', `the CUDA worker ended unexpectedly: ${why}`, { cause }))
      }
      this.#worker.once('error', (error) => died(error, TandemError.from(error).message))
      this.#worker.once('exit', (code) => died(undefined, `exit code ${code}`))
    })
  }

  /** True once the thread has ended. */
  get isDead(): boolean {
    return this.#isDead
  }

  /** Calls a function of the worker. Throws its error, and `ERR_WORKER_DIED` when the thread ends before it answers. */
  async call<T>(run: (api: Remote<CudaWorkerApi>) => Promise<Outcome<T>>): Promise<T> {
    const outcome = await Promise.race([run(this.#api), this.whenDead])
    if (TandemError.is(outcome)) throw outcome
    if ('error' in outcome) throw TandemError.fromRecord(outcome.error)
    return outcome.value
  }

  /** Opens a device; the port in the task becomes the worker's. Errors as of `call`. */
  open(task: CudaTask): Promise<Handle> {
    const { userStages } = task
    return this.call((api) => api.open(userStages ? transfer(task, [userStages.port]) : task))
  }

  /** Ends the thread, as soon as it is not inside the driver, and does not wait for that forever. */
  async terminate(): Promise<void> {
    this.#port.close()
    await Promise.race([this.#worker.terminate(), delay(TERMINATE_MS)])
  }
}
