/**
 * Answers from workers elsewhere, through a queue.
 *
 *     answer(): entry added, known by its task --> a worker takes it --> it is found completed --> outcome
 *     written(): the line is on the disk: the entry is removed
 *
 * An entry stays until its line is in the output, and its name is the same in every run: a producer that comes again adds nothing twice and finds
 * what was answered meanwhile. Entries that a Redis without persistence has lost are added again.
 */
import { hostname } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Answerer, Outcome } from '../batch/answerer.ts'
import { keyOf } from '../batch/answers.ts'
import type { BatchProgress, BatchSummary } from '../batch/progress.ts'
import type { BatchTask } from '../batch/task.ts'
import { TandemError } from '../errors.ts'
import { packageVersion } from '../package-root.ts'
import type { QueueConnection } from './connection.ts'
import { checkName, queueOf } from './keys.ts'
import type { ModelIdentity } from './model-identity.ts'
import { type Ownership, takeJob } from './owner.ts'
import { checkProtocol } from './protocol-check.ts'
import { type JobRecord, Registry } from './registry.ts'
import { fetchSettled, POISON, type Settled } from './settled.ts'
import { encodeTask, entryId, jobOfEntry, type TaskMessage } from './task-message.ts'
import { WorkerWatch } from './worker-watch.ts'

/** What is produced, and how much of it may be in Redis. */
export interface ProducerOptions {
  readonly job: string
  readonly model: ModelIdentity
  /** Path of the output, for people. */
  readonly output: string
  /** Most lines in Redis, waiting, worked on or answered. */
  readonly lines: number
  readonly onTalk?: ((line: string) => void) | undefined
}

/** Bytes of lines in Redis that keep further ones out; a single one may be longer. */
const MOST_BYTES = 64 * 2 ** 20
const POLL_MS = 100
const REPORT_MS = 1000
/** Entries that are gone without a trace are looked for this often. */
const RESTORE_MS = 10_000
const RUNNING_LIFE_MS = 7 * 24 * 3600 * 1000
const COMPLETE_LIFE_MS = 3600 * 1000

/** A line that is in Redis. */
interface Entry {
  readonly message: TaskMessage
  readonly bytes: number
  readonly settle: (settled: Settled) => void
  readonly fail: (error: unknown) => void
  isSettled: boolean
}

/** See the file's header. */
export class QueueProducer implements Answerer {
  readonly concurrency: number
  readonly #options: ProducerOptions
  readonly #queue: ReturnType<typeof queueOf>
  readonly #registry: Registry<JobRecord>
  readonly #entries = new Map<string, Entry>()
  /** Entries of tasks, by the tasks' keys, until their lines are written. */
  readonly #names = new Map<string, string>()
  readonly #end = new AbortController()
  #owner: Ownership | undefined
  #loop: Promise<void> | undefined
  #bytes = 0
  #wake: (() => void) | undefined
  #isRestoreDue = false
  #restoredAt = performance.now()
  #hasSwept = false
  #progress: BatchProgress | undefined

  private constructor(connection: QueueConnection, options: ProducerOptions) {
    this.#options = options
    this.concurrency = options.lines
    this.#queue = queueOf(connection, options.model.modelId)
    this.#registry = Registry.jobs(connection.redis)
  }

  /** Takes the job. Throws `ERR_QUEUE_JOB`, `ERR_QUEUE_MODEL`, `ERR_QUEUE_VERSION`, `ERR_QUEUE_CONNECTION`, `ERR_ARGUMENT`. */
  static async open(connection: QueueConnection, options: ProducerOptions): Promise<QueueProducer> {
    checkName('job', options.job)
    checkName('modelId', options.model.modelId)
    await checkProtocol(connection)
    const producer = new QueueProducer(connection, options)
    const watch = new WorkerWatch(connection.redis, options.model, options.onTalk)
    await watch.look()
    producer.#owner = await takeJob(connection, options.job, (error) => producer.#fail(error), options.onTalk)
    producer.#loop = producer.#run(watch).catch((error: unknown) => producer.#fail(error))
    connection.redis.on('ready', () => (producer.#isRestoreDue = true))
    connection.failed.addEventListener('abort', () => producer.#fail(connection.failed.reason), { once: true })
    return producer
  }

  /** Keeps what all machines can see of the job up to date. */
  report(progress: BatchProgress): void {
    this.#progress = progress
  }

  async admit(signal: AbortSignal): Promise<void> {
    while (this.#bytes >= MOST_BYTES && !signal.aborted && !this.#end.signal.aborted) {
      this.#sweepOnce()
      await new Promise<void>((resolve) => {
        this.#wake = resolve
        signal.addEventListener('abort', () => resolve(), { once: true })
      })
    }
  }

  async answer(task: BatchTask, signal: AbortSignal, onTokens: (count: number) => void): Promise<Outcome> {
    this.#end.signal.throwIfAborted()
    const message = encodeTask(task, this.#options.model.digest)
    const name = entryId(this.#options.job, message)
    const { promise, resolve, reject } = Promise.withResolvers<Settled>()
    const bytes = Buffer.byteLength(message.line)
    const entry: Entry = { message, bytes, settle: resolve, fail: reject, isSettled: false }
    this.#entries.set(name, entry)
    this.#names.set(keyOf(task), name)
    this.#bytes += bytes
    if (this.#entries.size >= this.concurrency) this.#sweepOnce()
    const onAbort = (): void => reject(signal.reason)
    signal.addEventListener('abort', onAbort, { once: true })
    if (signal.aborted) onAbort()
    this.#add([[name, entry]]).catch(reject)
    try {
      const settled = await promise
      if (settled === POISON) return { error: { code: 'ERR_WORKER_DIED', message: poisonText(task.line) }, preemptions: 0 }
      if ('finish' in settled) onTokens(settled.finish.tokens)
      return settled
    } finally {
      signal.removeEventListener('abort', onAbort)
    }
  }

  async written(task: BatchTask): Promise<void> {
    const key = keyOf(task)
    const name = this.#names.get(key)
    const entry = name === undefined ? undefined : this.#entries.get(name)
    if (name === undefined || !entry) return
    await this.#untilEnd(this.#queue.remove(name))
    this.#names.delete(key)
    this.#entries.delete(name)
    this.#bytes -= entry.bytes
    this.#wake?.()
  }

  /** Leaves the job: what is in Redis stays there for the next run, unless the job is complete, which its summary says. */
  async close(summary: BatchSummary | undefined): Promise<void> {
    try {
      if (summary) {
        await this.#untilEnd(this.#sweep())
        this.report({ ...summary, total: summary.lines, done: summary.lines, etaMs: 0 })
      }
      // what ended the job is told by whoever ran it
      await this.#untilEnd(this.#report(summary !== undefined)).catch(() => undefined)
    } finally {
      this.#end.abort(new TandemError('ERR_CLOSED', 'the producer has been closed'))
      await this.#loop
      await this.#owner?.release()
      await this.#queue.close().catch(() => undefined)
    }
  }

  /** Looks for results until the end. */
  async #run(watch: WorkerWatch): Promise<void> {
    const { signal } = this.#end
    let reportedAt = -Infinity
    while (!signal.aborted) {
      if (performance.now() - reportedAt > REPORT_MS) {
        reportedAt = performance.now()
        await this.#untilEnd(this.#report(false))
        await this.#untilEnd(watch.look())
      }
      if (this.#entries.size > 0) await this.#collect()
      if (this.#isRestoreDue || performance.now() - this.#restoredAt > RESTORE_MS) await this.#restore()
      await sleep(POLL_MS, undefined, { signal }).catch(() => undefined)
    }
  }

  async #collect(): Promise<void> {
    const names = await this.#untilEnd(this.#queue.getRanges(['completed', 'failed'], 0, -1))
    const wanted = names.filter((name) => this.#entries.get(name)?.isSettled === false)
    for await (const [name, settled] of fetchSettled(this.#queue, wanted)) {
      const entry = this.#entries.get(name)
      if (!entry) continue
      if (TandemError.is(settled)) {
        // it was refused for what can be set right: the next run asks again
        await this.#queue.remove(name)
        entry.fail(settled)
      } else {
        entry.isSettled = true
        entry.settle(settled)
      }
    }
  }

  /** Adds again what Redis has forgotten: adding what is there does nothing. */
  async #restore(): Promise<void> {
    this.#isRestoreDue = false
    this.#restoredAt = performance.now()
    const known = new Set(await this.#untilEnd(this.#ownNames()))
    const lost = [...this.#entries].filter(([name, { isSettled }]) => !isSettled && !known.has(name))
    if (lost.length > 0) await this.#untilEnd(this.#add(lost))
  }

  async #add(entries: readonly (readonly [string, Entry])[]): Promise<void> {
    await this.#queue.addBulk(entries.map(([name, { message }]) => ({ name: 'line', data: message, opts: { jobId: name } })))
  }

  /** Once, when everything is there that an earlier run may have left: throws away what belongs to lines that are no longer asked for. */
  #sweepOnce(): void {
    if (this.#hasSwept) return
    this.#hasSwept = true
    void this.#untilEnd(this.#sweep()).catch((error: unknown) => this.#fail(error))
  }

  async #sweep(): Promise<void> {
    const orphans = (await this.#ownNames()).filter((name) => !this.#entries.has(name))
    // one that a worker has cannot be removed; it goes away with the others of its age
    await Promise.all(orphans.map((name) => this.#queue.remove(name).catch(() => undefined)))
  }

  async #ownNames(): Promise<string[]> {
    const names = await this.#queue.getRanges(['wait', 'active', 'completed', 'failed'], 0, -1)
    return names.filter((name) => jobOfEntry(name) === this.#options.job)
  }

  async #report(isComplete: boolean): Promise<void> {
    const { job, model, output } = this.#options
    const { total = 0, done = 0, failed = 0, tokens = 0, tokensPerSecond = 0 } = this.#progress ?? {}
    const counts = { total, done, failed, tokens, tokensPerSecond }
    const common = { host: hostname(), pid: process.pid, version: packageVersion(), modelId: model.modelId, output, isComplete }
    await this.#registry.put(job, { ...common, ...counts }, isComplete ? COMPLETE_LIFE_MS : RUNNING_LIFE_MS)
  }

  /** What Redis answers, or the end, whichever is first: Redis may never answer. */
  async #untilEnd<Value>(work: Promise<Value>): Promise<Value> {
    const { signal } = this.#end
    const { promise, reject } = Promise.withResolvers<never>()
    const onAbort = (): void => reject(signal.reason)
    signal.addEventListener('abort', onAbort, { once: true })
    if (signal.aborted) onAbort()
    try {
      return await Promise.race([work, promise])
    } finally {
      signal.removeEventListener('abort', onAbort)
      work.catch(() => undefined)
    }
  }

  #fail(error: unknown): void {
    if (this.#end.signal.aborted) return
    const failure = TandemError.from(error, 'ERR_QUEUE_CONNECTION')
    this.#end.abort(failure)
    this.#wake?.()
    for (const entry of this.#entries.values()) entry.fail(failure)
  }
}

const poisonText = (line: number): string => `line ${line}: every worker that had it came to its end before it was answered`
