/**
 * The main thread's end of an executor: the control block that all its threads share, the ring of steps in it, and the first reason why it failed.
 *
 *     open --fail--> failed: every call throws the reason
 *       \              |
 *        +--closing ---+----> threads see `stop`, or poison when a step is in flight
 */
import { CONTROL, HANDOFF } from '../abi/control.ts'
import { STEP_HEADER, STEP_OUTCOME } from '../abi/step.ts'
import { type MessageChannel, messageChannel } from '../diagnostics/channels.ts'
import { debugLog } from '../diagnostics/debug.ts'
import { TandemError } from '../errors.ts'
import { arenaBuffer, createArena } from './arena.ts'
import { FanIn } from './fan-in.ts'
import { poison } from './poison.ts'
import { Ring, ringWords } from './ring.ts'
import { delay } from './wait.ts'

/** A claimed ring slot: the engine writes the step's record here. */
export interface StepSlot {
  readonly sequence: number
  readonly words: Int32Array<SharedArrayBuffer>
}

/** What a port is made for. */
export interface StepPortOptions {
  /** Bytes of one step record. */
  readonly stepBytes: number
  readonly ringDepth: number
  /** Threads that each take every step: the pool's workers, or the one worker of a device. */
  readonly consumers: number
}

/** An executor that has failed: a message of the channel `tandem:failure`. Every call of its engine rejects with the error. */
export interface FailureMessage {
  readonly error: TandemError
}

const failures: MessageChannel<FailureMessage> = messageChannel('tandem:failure')
const debug = debugLog('engine')

/** How long the reason of a failure may come after its poison, ms. */
const REASON_MS = 1000

/** See the file's header. */
export class StepPort {
  /** Control words, then the ring's slots. */
  readonly control: WebAssembly.Memory
  readonly words: Int32Array<SharedArrayBuffer>
  /** Byte offset of slot 0 in `control`; slots are `slotBytes` apart. */
  readonly slots: number
  readonly slotBytes: number
  readonly ringDepth: number
  /** Resolves with the first failure; never rejects. */
  readonly whenFailed: Promise<TandemError>
  readonly #ring: Ring
  readonly #tellFailure: (error: TandemError) => void
  #failure: TandemError | undefined
  #isClosing = false

  constructor({ stepBytes, ringDepth, consumers }: StepPortOptions) {
    this.ringDepth = ringDepth
    this.slots = Math.ceil(((CONTROL.ring + ringWords(ringDepth)) * 4) / 64) * 64
    this.slotBytes = Math.ceil(stepBytes / 64) * 64
    this.control = createArena(this.slots + this.slotBytes * ringDepth)
    this.words = new Int32Array(arenaBuffer(this.control))
    this.#ring = new Ring(this.words, CONTROL.ring, ringDepth, consumers)
    const { promise, resolve } = Promise.withResolvers<TandemError>()
    this.whenFailed = promise
    this.#tellFailure = resolve
  }

  /** Why the executor failed, if it has. */
  get failure(): TandemError | undefined {
    return this.#failure
  }

  /** Remembers the first reason and wakes everyone. Threads that fail because they were poisoned are not a reason; the one that is follows. */
  fail(error: TandemError): void {
    if (this.#isClosing || error.code === 'ERR_POISONED') return
    if (!this.#failure) {
      this.#failure = error
      this.#tellFailure(error)
      debug?.(`poisoned, because of ${error.code}: ${error.message}`)
      if (failures.hasSubscribers) failures.publish({ error })
    }
    this.poison()
  }

  /** Tells every thread to stop and fail. */
  poison(): void {
    const { epochWord } = new FanIn(this.words, CONTROL.barrier, 1)
    const handoff = [CONTROL.handoff + HANDOFF.published, CONTROL.handoff + HANDOFF.completed]
    poison(this.words, [epochWord, ...this.#ring.waitWords, ...handoff, CONTROL.ready])
  }

  /** Throws the failure that poisoned the threads; it may be told a moment later than the poison is seen. */
  async rethrow(cause: unknown): Promise<never> {
    const error = TandemError.from(cause)
    if (error.code !== 'ERR_POISONED') throw error
    if (this.#isClosing) throw new TandemError('ERR_CLOSED', 'the executor has been closed')
    for (let waited = 0; waited < REASON_MS && this.#failure === undefined; waited += 10) await delay(10)
    throw this.#failure ?? error
  }

  /** A free slot, or undefined when as many steps are in flight as the ring is deep. Throws the failure. */
  tryClaim(): StepSlot | undefined {
    if (this.#failure) throw this.#failure
    if (this.#isClosing) throw new TandemError('ERR_CLOSED', 'the executor has been closed')
    const sequence = this.#ring.tryClaim()
    if (sequence === undefined) return undefined
    const offset = this.slots + this.#ring.slotOf(sequence) * this.slotBytes
    return { sequence, words: new Int32Array(arenaBuffer(this.control), offset, this.slotBytes / 4) }
  }

  /** Hands a written slot to the threads. */
  publish({ sequence, words }: StepSlot): void {
    Atomics.store(words, STEP_HEADER.cancel, 0)
    Atomics.store(words, STEP_HEADER.outcome, STEP_OUTCOME.done)
    this.#ring.publish(sequence)
  }

  /** Asks for a published step to be abandoned before its next stage. */
  cancel({ words }: StepSlot): void {
    Atomics.store(words, STEP_HEADER.cancel, 1)
  }

  /** Resolves when a published step has ended: true when it was computed, false when it was cancelled. Throws the failure. */
  async whenCompleted({ sequence, words }: StepSlot): Promise<boolean> {
    try {
      await this.#ring.whenCompleted(sequence, { deadlineMs: Infinity, what: 'a step' })
    } catch (error) {
      await this.rethrow(error)
    }
    return Atomics.load(words, STEP_HEADER.outcome) === STEP_OUTCOME.done
  }

  /**
   * Tells the threads to end. With nothing in flight they see `stop` behind one more slot, whose contents do not matter; else some might see it
   * before the step and some after, and wait for each other, so poison takes all out of it. `ring`: where they wait, default the ring of steps.
   */
  stop(ring: Ring = this.#ring): void {
    this.#isClosing = true
    Atomics.store(this.words, CONTROL.stop, 1)
    const isIdle = ring.published === ring.completed
    const sequence = isIdle && !this.#failure ? ring.tryClaim() : undefined
    if (sequence === undefined) this.poison()
    else ring.publish(sequence)
  }
}
