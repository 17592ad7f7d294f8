/**
 * A worker: takes lines of a model's queue, as many as its engine has sequences, and gives back what became of them.
 *
 *     take line, its lock is renewed --> answer --> completed, if the lock is still ours
 *
 * It ends when its signal fires: nothing more is taken, what is begun may be finished within a time of grace, and the rest goes back to the head of
 * the queue. A worker that dies says nothing: its locks run out, and the others take its lines over.
 */
import { randomUUID } from 'node:crypto'
import { hostname } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Answerer } from '../batch/answerer.ts'
import { TandemError } from '../errors.ts'
import { packageVersion } from '../package-root.ts'
import type { QueueConnection } from './connection.ts'
import { BULLMQ_PREFIX, KEEP_SECONDS } from './keys.ts'
import type { ModelIdentity } from './model-identity.ts'
import type { Job, QueueTaker } from './packages.ts'
import { checkProtocol } from './protocol-check.ts'
import { Registry, type WorkerRecord } from './registry.ts'
import { decodeTask } from './task-message.ts'

/** How to work. */
export interface QueueWorkerOptions {
  readonly model: ModelIdentity & { readonly digest: string }
  /** A worker that has not been heard of for so long has died, ms. Default 30,000. */
  readonly lockMs?: number | undefined
  /** Time to finish what is begun when the signal fires, ms. Default 10,000. */
  readonly graceMs?: number | undefined
  /** End when there was no work for so long, ms. Default: never. */
  readonly idleMs?: number | undefined
  readonly onProgress?: ((progress: WorkerProgress) => void) | undefined
  readonly signal: AbortSignal
}

/** Where a worker stands. */
export interface WorkerProgress {
  readonly active: number
  readonly answered: number
  /** Lines that got an error. */
  readonly failed: number
  /** Lines that were given back. */
  readonly returned: number
  readonly tokens: number
  /** Of the last seconds. */
  readonly tokensPerSecond: number
  readonly seconds: number
}

const LOCK_MS = 30_000
const GRACE_MS = 10_000
/** Stalled lines are looked for so many times in the life of a lock. */
const CHECKS_PER_LOCK = 4
/** How often a line may lose its worker: one that makes every worker die must come to an end, one with bad luck must not. */
const MOST_DEATHS = 10
const HEARTBEAT_MS = 1000
const RECORD_LIFE_MS = 10_000
/** For what the line's worker has to say to Redis at the end. */
const CLOSE_MS = 5000
/** A blocking wait for work, s; BullMQ looks whether it is still connected between two. */
const BLOCK_SECONDS = 5
const RETRY_MS = 500

/** See the file's header. */
export class QueueWorker {
  readonly #connection: QueueConnection
  readonly #options: QueueWorkerOptions
  readonly #answerer: Answerer
  readonly #worker: QueueTaker
  readonly #registry: Registry<WorkerRecord>
  readonly #name = randomUUID()
  readonly #startedAt = performance.now()
  /** Fires when nothing may be finished any more. */
  readonly #stop = new AbortController()
  /** Lines that are worked on, and how to stop each. */
  readonly #active = new Map<string, AbortController>()
  readonly #ended = Promise.withResolvers<void>()
  #failure: TandemError | undefined
  #lastWorkAt = performance.now()
  #answered = 0
  #failed = 0
  #returned = 0
  #tokens = 0
  #tokensPerSecond = 0
  #measured = { at: performance.now(), tokens: 0 }

  constructor(connection: QueueConnection, answerer: Answerer, options: QueueWorkerOptions) {
    const { model, lockMs = LOCK_MS } = options
    this.#connection = connection
    this.#answerer = answerer
    this.#options = options
    this.#registry = Registry.workers(connection.redis)
    this.#worker = new connection.packages.Taker(model.modelId, (job: Job) => this.#work(job), {
      connection: connection.redis,
      prefix: BULLMQ_PREFIX,
      autorun: false,
      skipVersionCheck: true,
      concurrency: answerer.concurrency,
      lockDuration: lockMs,
      stalledInterval: Math.ceil(lockMs / CHECKS_PER_LOCK),
      maxStalledCount: MOST_DEATHS,
      drainDelay: BLOCK_SECONDS,
      runRetryDelay: RETRY_MS,
      removeOnComplete: { age: KEEP_SECONDS },
      removeOnFail: { age: KEEP_SECONDS },
    })
    // what goes wrong with the connection is told by the connection; a line whose lock was lost is somebody else's now
    this.#worker.on('error', () => undefined)
    this.#worker.on('lockRenewalFailed', (names) => names.forEach((name) => this.#active.get(name)?.abort(lockLost())))
  }

  /** To be called before a model is loaded. Throws `ERR_QUEUE_VERSION`, and `ERR_QUEUE_MODEL` when a worker has another file under the same id. */
  static async check(connection: QueueConnection, { modelId, digest }: ModelIdentity): Promise<void> {
    await checkProtocol(connection)
    const all = await Registry.workers(connection.redis).all()
    const other = [...all.values()].find((worker) => worker.modelId === modelId && worker.digest !== digest)
    if (!other) return
    const who = `the worker on ${other.host} (process ${other.pid})`
    throw new TandemError('ERR_QUEUE_MODEL', `${who} has another file under the model id ${modelId}; choose another --model-id`)
  }

  /** Works until the signal fires or there is nothing to do. Throws `ERR_QUEUE_CONNECTION`, and failures of the engine. */
  async run(): Promise<WorkerProgress> {
    const { signal, graceMs = GRACE_MS } = this.#options
    const { failed } = this.#connection
    const end = (): void => this.#ended.resolve()
    const onLost = (): void => this.#fail(failed.reason)
    signal.addEventListener('abort', end, { once: true })
    failed.addEventListener('abort', onLost, { once: true })
    if (signal.aborted) end()
    if (failed.aborted) onLost()
    await this.#beat()
    const heartbeat = setInterval(() => void this.#beat().catch(() => undefined), HEARTBEAT_MS)
    try {
      const running = this.#worker.run().catch((error: unknown) => this.#fail(error))
      await Promise.race([this.#ended.promise, running])
      let isClosed = false
      // BullMQ waits for a connection to end, also for one that has ended already
      const closing = this.#worker.close(!this.#connection.isUp).then(
        () => (isClosed = true),
        () => undefined,
      )
      await Promise.race([closing, this.#stopped(graceMs)])
      this.#stop.abort(new TandemError('ERR_ABORTED', 'the worker ends'))
      await Promise.race([closing, sleep(CLOSE_MS, undefined, { ref: false })])
      if (!isClosed) this.#worker.abandon()
      if (this.#connection.isUp) await Promise.race([this.#registry.remove(this.#name), sleep(CLOSE_MS, undefined, { ref: false })])
    } finally {
      clearInterval(heartbeat)
      signal.removeEventListener('abort', end)
      failed.removeEventListener('abort', onLost)
    }
    if (this.#failure) throw this.#failure
    return this.#progress()
  }

  /** One line. What it throws ends up with the producer, except a line that was given back. */
  async #work(job: Job): Promise<unknown> {
    const name = job.id ?? ''
    const abort = new AbortController()
    this.#active.set(name, abort)
    try {
      const { task, digest } = decodeTask(job.data)
      if (digest !== null && digest !== this.#options.model.digest) {
        throw new TandemError('ERR_QUEUE_MODEL', `the job was made for another file than the worker on ${hostname()} has; see --model-id`)
      }
      const signal = AbortSignal.any([abort.signal, this.#stop.signal])
      const outcome = await this.#answerer.answer(task, signal, (count) => (this.#tokens += count))
      if ('error' in outcome) this.#failed++
      else this.#answered++
      return outcome
    } catch (error) {
      const failure = TandemError.from(error)
      const isRefused = failure.code === 'ERR_QUEUE_MODEL' || failure.code === 'ERR_QUEUE_VERSION'
      if (isRefused || abort.signal.aborted) throw new Error(`${failure.code}: ${failure.message}`, { cause: error })
      // this worker cannot go on; another one can
      if (!this.#stop.signal.aborted) this.#fail(failure)
      await job.moveToWait(job.token)
      this.#returned++
      throw new this.#connection.packages.WaitingError()
    } finally {
      this.#active.delete(name)
      this.#lastWorkAt = performance.now()
    }
  }

  #fail(error: unknown): void {
    this.#failure ??= TandemError.from(error)
    this.#stop.abort(this.#failure)
    this.#ended.resolve()
  }

  /** Resolves after the time of grace, or when there is nothing to finish for. */
  async #stopped(graceMs: number): Promise<void> {
    if (this.#stop.signal.aborted) return
    await sleep(graceMs, undefined, { signal: this.#stop.signal, ref: false }).catch(() => undefined)
  }

  /** Measures, tells, and looks whether there is anything left to do. */
  async #beat(): Promise<void> {
    const now = performance.now()
    const { idleMs = Infinity, model, onProgress } = this.#options
    if (now > this.#measured.at) {
      const rate = ((this.#tokens - this.#measured.tokens) * 1000) / (now - this.#measured.at)
      // half of it is what it was: a step of the batch is no jump of the speed
      this.#tokensPerSecond = (this.#tokensPerSecond + rate) / 2
    }
    this.#measured = { at: now, tokens: this.#tokens }
    const progress = this.#progress()
    onProgress?.(progress)
    if (this.#active.size === 0 && now - this.#lastWorkAt > idleMs) this.#ended.resolve()
    const { active, answered, tokens, tokensPerSecond } = progress
    const counts = { active, answered, tokens, tokensPerSecond, concurrency: this.#answerer.concurrency }
    const common = { host: hostname(), pid: process.pid, version: packageVersion(), modelId: model.modelId, digest: model.digest }
    await this.#registry.put(this.#name, { ...common, ...counts }, RECORD_LIFE_MS)
  }

  #progress(): WorkerProgress {
    return {
      active: this.#active.size,
      answered: this.#answered,
      failed: this.#failed,
      returned: this.#returned,
      tokens: this.#tokens,
      tokensPerSecond: this.#tokensPerSecond,
      seconds: (performance.now() - this.#startedAt) / 1000,
    }
  }
}

const lockLost = (): TandemError => new TandemError('ERR_ABORTED', 'another worker has taken the line over')
