/** Tells a producer's user whether there is anybody to do the work. */
import { TandemError } from '../errors.ts'
import type { ModelIdentity } from './model-identity.ts'
import type { Redis } from './packages.ts'
import { Registry, type WorkerRecord } from './registry.ts'

/** Before it is said that nobody is there: workers may be about to start. */
const PATIENCE_MS = 1500

/** See the file's header. */
export class WorkerWatch {
  readonly #registry: Registry<WorkerRecord>
  readonly #model: ModelIdentity
  readonly #talk: (line: string) => void
  readonly #begunAt = performance.now()
  #count: number | undefined

  constructor(redis: Redis, model: ModelIdentity, onTalk: (line: string) => void = () => undefined) {
    this.#registry = Registry.workers(redis)
    this.#model = model
    this.#talk = onTalk
  }

  /** Looks once. Throws `ERR_QUEUE_MODEL` when a worker has another file under the same id. */
  async look(): Promise<void> {
    const { modelId, digest } = this.#model
    const all = [...(await this.#registry.all()).values()]
    const ours = all.filter((worker) => worker.modelId === modelId)
    const other = digest === undefined ? undefined : ours.find((worker) => worker.digest !== digest)
    if (other) {
      throw new TandemError(
        'ERR_QUEUE_MODEL',
        `the worker on ${other.host} (process ${other.pid}) has another file than yours under the model id ${modelId}; choose another --model-id`,
      )
    }
    if (ours.length === this.#count) return
    if (ours.length === 0 && performance.now() - this.#begunAt < PATIENCE_MS) return
    this.#count = ours.length
    if (ours.length > 0) return this.#talk(`${ours.length} ${ours.length === 1 ? 'worker has' : 'workers have'} the model ${modelId}`)
    const others = [...new Set(all.map((worker) => worker.modelId))].sort()
    const elsewhere = others.length > 0 ? `; workers are there for ${others.join(', ')}` : ''
    this.#talk(`no worker has the model ${modelId}${elsewhere}: waiting for one (tandem worker)`)
  }
}
