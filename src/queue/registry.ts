/** Records that workers and producers leave of themselves, for all machines to see; one that is not renewed goes away by itself. */
import type { Redis } from './packages.ts'

/** What a worker tells. */
export interface WorkerRecord {
  readonly host: string
  readonly pid: number
  /** Of the package. */
  readonly version: string
  readonly modelId: string
  /** Of the model's file. */
  readonly digest: string
  /** Lines that it works on at a time, and now. */
  readonly concurrency: number
  readonly active: number
  readonly answered: number
  readonly tokens: number
  readonly tokensPerSecond: number
}

/** What a producer tells of its job. */
export interface JobRecord {
  readonly host: string
  readonly pid: number
  readonly version: string
  readonly modelId: string
  readonly output: string
  readonly total: number
  readonly done: number
  readonly failed: number
  readonly tokens: number
  readonly tokensPerSecond: number
  readonly isComplete: boolean
}

/** Records of one kind, by name. */
export class Registry<Entry extends WorkerRecord | JobRecord> {
  readonly #redis: Redis
  readonly #kind: string

  private constructor(redis: Redis, kind: string) {
    this.#redis = redis
    this.#kind = kind
  }

  static workers(redis: Redis): Registry<WorkerRecord> {
    return new Registry(redis, 'worker')
  }

  static jobs(redis: Redis): Registry<JobRecord> {
    return new Registry(redis, 'job')
  }

  async put(name: string, record: Entry, lifeMs: number): Promise<void> {
    const text = JSON.stringify(record)
    await this.#redis.multi().sadd(this.#index, name).set(this.#key(name), text, 'PX', lifeMs).exec()
  }

  async remove(name: string): Promise<void> {
    await this.#redis.multi().srem(this.#index, name).del(this.#key(name)).exec()
  }

  /** Those that are alive; forgets the others. */
  async all(): Promise<Map<string, Entry>> {
    const names = (await this.#redis.smembers(this.#index)).sort()
    if (names.length === 0) return new Map()
    const texts = await this.#redis.mget(names.map((name) => this.#key(name)))
    const gone = names.filter((_, index) => texts[index] === null)
    if (gone.length > 0) await this.#redis.srem(this.#index, gone)
    const found = new Map<string, Entry>()
    texts.forEach((text, index) => {
      const record = text === null ? undefined : (parseRecord(text) as Entry | undefined)
      if (record) found.set(names[index]!, record)
    })
    return found
  }

  get #index(): string {
    return `tandem:${this.#kind}s`
  }

  #key(name: string): string {
    return `tandem:${this.#kind}:${name}`
  }
}

function parseRecord(text: string): WorkerRecord | JobRecord | undefined {
  try {
    const value: unknown = JSON.parse(text)
    const { host, modelId } = (value ?? {}) as Partial<WorkerRecord>
    return typeof host === 'string' && typeof modelId === 'string' ? (value as WorkerRecord | JobRecord) : undefined
  } catch {
    return undefined
  }
}
