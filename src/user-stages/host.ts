/** The main thread's side of user stages: starts a thread for each observer, and sorts what they and the steerers post. */
import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from 'node:worker_threads'
import { TandemError } from '../errors.ts'
import type { UserStageProgram } from '../pipeline/program.ts'
import { poison } from '../ring/poison.ts'
import { Ring } from '../ring/ring.ts'
import { delay } from '../ring/wait.ts'
import {
  type ObserverTask,
  QUEUE,
  queueRecords,
  type SteererTask,
  STEERING,
  STEERING_BYTES,
  type UserStageMessage,
  type UserStageTask,
} from './protocol.ts'
import { UserStageChannel } from './results.ts'
import { recordPlaces } from './view.ts'

/** An observer: its thread, and the queue that leads there. */
interface Observer {
  readonly worker: Worker
  readonly queue: SharedArrayBuffer
  readonly words: Int32Array<SharedArrayBuffer>
  readonly ring: Ring
}

/** Where steerers have a thread of their own: what they see, how often it looks before it sleeps, and who is told when it has ended. */
export interface SteererOptions {
  readonly memory: SharedArrayBuffer
  readonly spins: number
  readonly onDead: (error: TandemError) => void
}

/** The steerers' thread, and the words through which it is called. */
interface SteererThread {
  readonly worker: Worker
  readonly steering: SharedArrayBuffer
  readonly poison: () => void
}

const EXTENSION = import.meta.url.endsWith('.ts') ? 'ts' : 'js'

/** See the file's header. Made for programs with user stages only. */
export class UserStageHost {
  /** For the thread that calls user stages, `task.port` to be transferred. */
  readonly task: UserStageTask
  readonly #channels = new Map<string, UserStageChannel>()
  readonly #byIndex: UserStageChannel[] = []
  readonly #observers: (Observer | undefined)[]
  readonly #steerer: SteererThread | undefined
  /** User stages whose functions are imported in threads that are started here. */
  readonly #expected: number
  readonly #ports: MessagePort[] = []
  /** Why steps were abandoned, by the step's number. */
  readonly #stepFailures = new Map<number, TandemError>()
  readonly #ready = new Set<number>()
  readonly #started = Promise.withResolvers<void>()
  #isClosing = false

  /** `steerers`: where they are not called by the thread that gets `task`. */
  constructor(program: UserStageProgram, steerers?: SteererOptions) {
    const stages = program.userStages
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
    const hasThread = steerers !== undefined && stages.some((stage) => stage.steer)
    this.#expected = stages.filter((stage) => hasThread || !stage.steer).length
    this.#steerer = hasThread ? this.#startSteerer(program, steerers) : undefined
    const queues = this.#observers.map((observer) => observer?.queue)
    this.task = { port: this.#port(), queues, steering: this.#steerer?.steering }
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

  /** Resolves when every thread has its functions. Throws `ERR_USER_STAGE`, `ERR_WORKER_DIED`, `ERR_TIMEOUT`. */
  async whenReady(deadlineMs: number): Promise<void> {
    const late = new TandemError('ERR_TIMEOUT', `user stages were not imported within ${deadlineMs} ms`)
    await Promise.race([this.#started.promise, delay(deadlineMs).then(() => Promise.reject(late))])
  }

  /** From now on nobody waits for a user's function. */
  stop(): void {
    this.#isClosing = true
    this.#steerer?.poison()
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
    const workers = [...this.#observers, this.#steerer]
    await Promise.all(workers.flatMap((thread) => (thread ? [thread.worker.terminate()] : [])))
  }

  #startSteerer(program: UserStageProgram, { memory, spins, onDead }: SteererOptions): SteererThread {
    const steering = new SharedArrayBuffer(STEERING_BYTES)
    const port = this.#port()
    const task: SteererTask = { program, memory, steering, spins, port }
    const words = new Int32Array(steering)
    const { waitWords } = new Ring(words, STEERING.ring, 1, 1)
    const worker = this.#startThread('steerer', 'user stages', task, (how) => {
      if (this.#isClosing) return
      onDead(new TandemError('ERR_WORKER_DIED', `the thread of the user stages that steer ended unexpectedly: ${how}`))
      poison(words, waitWords)
    })
    return { worker, steering, poison: () => void poison(words, waitWords) }
  }

  /** Starts a thread that does not keep the process alive. `onEnd`: called once or twice, with how it ended. */
  #startThread(file: 'observer' | 'steerer', name: string, task: ObserverTask | SteererTask, onEnd: (how: string) => void): Worker {
    const worker = new Worker(new URL(`./${file}.${EXTENSION}`, import.meta.url), { workerData: task, transferList: [task.port], name })
    worker.unref()
    worker.on('error', (error) => onEnd(error instanceof Error ? error.message : String(error)))
    worker.on('exit', (code) => onEnd(`exit code ${code}`))
    return worker
  }

  #startObserver(program: UserStageProgram, user: number): Observer {
    const stage = program.userStages[user]!
    // memory that is not written to costs nothing: a record has room for the largest step
    const queue = new SharedArrayBuffer(queueRecords(stage.queue) + stage.queue * recordPlaces(program, stage).bytes)
    const port = this.#port()
    const task: ObserverTask = { program, user, queue, port }
    const words = new Int32Array(queue)
    const ring = new Ring(words, QUEUE.ring, stage.queue, 1)
    const worker = this.#startThread('observer', `user stage ${stage.name}`, task, (how) => {
      this.#drain()
      if (this.#isClosing || this.#byIndex[user]!.failure) return
      poison(words, ring.waitWords)
      this.#fail(user, new TandemError('ERR_WORKER_DIED', `the thread of user stage '${stage.name}' ended unexpectedly: ${how}`))
    })
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
    if (this.#ready.size === this.#expected) this.#started.resolve()
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
