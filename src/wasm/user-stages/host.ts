/** The main thread's side of user stages: starts a thread for each observer, and sorts what they and the steerers post. */
import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from 'node:worker_threads'
import { TandemError } from '../../errors.ts'
import type { Program } from '../../pipeline/program.ts'
import { poison } from '../../ring/poison.ts'
import { Ring } from '../../ring/ring.ts'
import { type ObserverTask, QUEUE, queueRecords, type UserStageMessage, type UserStageTask } from './protocol.ts'
import { UserStageChannel } from './results.ts'
import { recordPlaces } from './view.ts'

/** An observer: its thread, and the queue that leads there. */
interface Observer {
  readonly worker: Worker
  readonly queue: SharedArrayBuffer
  readonly words: Int32Array<SharedArrayBuffer>
  readonly ring: Ring
}

/** See the file's header. Made for programs with user stages only. */
export class UserStageHost {
  /** For worker 0 of the pool, `task.port` to be transferred. */
  readonly task: UserStageTask
  readonly #channels = new Map<string, UserStageChannel>()
  readonly #byIndex: UserStageChannel[] = []
  readonly #observers: (Observer | undefined)[]
  readonly #ports: MessagePort[] = []
  /** Why steps were abandoned, by the step's number. */
  readonly #stepFailures = new Map<number, TandemError>()
  readonly #ready = new Set<number>()
  readonly #started = Promise.withResolvers<void>()
  #isClosing = false

  constructor(program: Program) {
    const stages = program.userStages ?? []
    this.#started.promise.catch(() => undefined)
    this.#observers = stages.map((stage, user) => (stage.steer ? undefined : this.#startObserver(program, user)))
    for (const [user, { name }] of stages.entries()) {
      const channel = new UserStageChannel(
        () => this.#settle(user),
        () => this.#droppedBy(user),
      )
      this.#channels.set(name, channel)
      this.#byIndex.push(channel)
    }
    this.task = { port: this.#port(), queues: this.#observers.map((observer) => observer?.queue) }
    this.#checkStarted()
  }

  /** What a user stage's function has returned. */
  get(name: string): UserStageChannel | undefined {
    return this.#channels.get(name)
  }

  /** Why a step was abandoned, if it was a user stage's doing. Told once. */
  failureOf(step: number): TandemError | undefined {
    this.#drain()
    const failure = this.#stepFailures.get(step)
    this.#stepFailures.delete(step)
    return failure
  }

  /** Resolves when every observer has its function. Throws `ERR_USER_STAGE`, `ERR_WORKER_DIED`. */
  whenReady(): Promise<void> {
    return this.#started.promise
  }

  /** From now on nobody waits for an observer. */
  stop(): void {
    this.#isClosing = true
    for (const observer of this.#observers) if (observer) poison(observer.words, observer.ring.waitWords)
  }

  /** Ends the threads. */
  async close(): Promise<void> {
    this.stop()
    this.#drain()
    const closed = new TandemError('ERR_CLOSED', 'the engine was closed')
    this.#started.reject(closed)
    for (const channel of this.#byIndex) channel.fail(closed)
    for (const port of this.#ports) port.close()
    await Promise.all(this.#observers.flatMap((observer) => (observer ? [observer.worker.terminate()] : [])))
  }

  #startObserver(program: Program, user: number): Observer {
    const stage = program.userStages![user]!
    // memory that is not written to costs nothing: a record has room for the largest step
    const queue = new SharedArrayBuffer(queueRecords(stage.queue) + stage.queue * recordPlaces(program, stage).bytes)
    const port = this.#port()
    const task: ObserverTask = { program, user, queue, port }
    const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js'
    const worker = new Worker(new URL(`./observer.${extension}`, import.meta.url), {
      workerData: task,
      transferList: [port],
      name: `user stage ${stage.name}`,
    })
    worker.unref()
    const words = new Int32Array(queue)
    const ring = new Ring(words, QUEUE.ring, stage.queue, 1)
    const onEnd = (how: string): void => {
      this.#drain()
      if (this.#isClosing || this.#byIndex[user]!.failure) return
      poison(words, ring.waitWords)
      this.#fail(user, new TandemError('ERR_WORKER_DIED', `the thread of user stage '${stage.name}' ended unexpectedly: ${how}`))
    }
    worker.on('error', (error) => onEnd(error instanceof Error ? error.message : String(error)))
    worker.on('exit', (code) => onEnd(`exit code ${code}`))
    return { worker, queue, words, ring }
  }

  /** One end of a channel whose other end posts messages here. */
  #port(): MessagePort {
    const { port1, port2 } = new MessageChannel()
    port1.on('message', (message: UserStageMessage) => this.#receive(message))
    // the pool's threads keep the process alive as long as there is something to wait for
    port1.unref()
    this.#ports.push(port1)
    return port2
  }

  /** Takes messages that have been posted and not yet been told of. */
  #drain(): void {
    for (const port of this.#ports) {
      for (let next = receiveMessageOnPort(port); next; next = receiveMessageOnPort(port)) this.#receive(next.message as UserStageMessage)
    }
  }

  #receive(message: UserStageMessage): void {
    const { user } = message
    if (message.kind === 'ready') {
      this.#ready.add(user)
      this.#checkStarted()
    } else if (message.kind === 'value') {
      const { step, layer, value } = message
      this.#byIndex[user]!.push({ step, layer, value })
    } else {
      const error = TandemError.fromRecord(message.error)
      if (message.step === undefined) this.#fail(user, error)
      else this.#stepFailures.set(message.step, error)
    }
  }

  #fail(user: number, error: TandemError): void {
    this.#byIndex[user]!.fail(error)
    this.#started.reject(error)
  }

  #checkStarted(): void {
    if (this.#ready.size === this.#observers.filter((observer) => observer !== undefined).length) this.#started.resolve()
  }

  /** Resolves when an observer has seen all that is in its queue, and its values are here. */
  async #settle(user: number): Promise<void> {
    const observer = this.#observers[user]
    if (observer && !this.#isClosing) {
      const { ring } = observer
      try {
        await ring.whenCompleted(ring.published, { deadlineMs: Infinity, what: 'an observer' })
      } catch (error) {
        // poisoned: the reason is in the port, or the engine is closing
        if (TandemError.from(error).code !== 'ERR_POISONED') throw error
      }
    }
    if (!this.#isClosing) this.#drain()
  }

  #droppedBy(user: number): number {
    const observer = this.#observers[user]
    return observer ? Atomics.load(observer.words, QUEUE.dropped) : 0
  }
}
