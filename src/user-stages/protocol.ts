/** What the threads of user stages and the main thread say to each other, and the words that they share. */
import type { MessagePort } from 'node:worker_threads'
import type { ErrorRecord } from '../errors.ts'
import type { UserStageProgram } from '../pipeline/program.ts'
import { ringWords } from '../ring/ring.ts'

/** Words of an observer's queue; word 0 is its poison word: set when nobody reads it any more. Records follow on the next 64 bytes. */
export const QUEUE = { dropped: 16, ring: 32 } as const

/** Byte offset of a queue's first record. */
export const queueRecords = (depth: number): number => (QUEUE.ring + ringWords(depth)) * 4

const CALL = 16 + ringWords(1)

/** Words between a GPU's worker and the steerers' thread; word 0 is the poison word. The call that the ring's one slot stands for follows the ring. */
export const STEERING = {
  ring: 16,
  user: CALL,
  /** -1 for none. */
  layer: CALL + 1,
  step: CALL + 2,
  tokens: CALL + 3,
  runs: CALL + 4,
  outputs: CALL + 5,
  /** Written by the steerer: 1 when the step is to be abandoned. */
  isAbandoned: CALL + 6,
} as const

/** First of the words that say where the call's fields lie, in units of 4 bytes. */
export const STEERING_FIELDS = CALL + 8

/** Bytes of these words. */
export const STEERING_BYTES = (CALL + 16) * 4

/** What the thread that calls user stages needs: where to post, the queue of every one that observes, and the words of those that steer elsewhere. */
export interface UserStageTask {
  readonly port: MessagePort
  readonly queues: readonly (SharedArrayBuffer | undefined)[]
  readonly steering?: SharedArrayBuffer | undefined
}

/** One call of a user stage. */
export interface UserStageCall {
  /** Index in `UserStageProgram.userStages`. */
  readonly user: number
  readonly layer: number | undefined
}

/** What an observer's thread needs. */
export interface ObserverTask {
  readonly program: UserStageProgram
  /** Index in `UserStageProgram.userStages`. */
  readonly user: number
  readonly queue: SharedArrayBuffer
  readonly port: MessagePort
}

/** What the steerers' thread needs. */
export interface SteererTask {
  readonly program: UserStageProgram
  /** What views are made of. */
  readonly memory: SharedArrayBuffer
  readonly steering: SharedArrayBuffer
  /** Looks for a call before it sleeps. */
  readonly spins: number
  readonly port: MessagePort
}

/** What a user function returned. */
export interface UserStageValue {
  readonly kind: 'value'
  readonly user: number
  readonly step: number
  readonly layer: number | undefined
  readonly value: unknown
}

/** A user function that failed; `step`: the step that is abandoned for it. */
export interface UserStageFailure {
  readonly kind: 'failure'
  readonly user: number
  readonly step?: number
  readonly error: ErrorRecord
}

/** A function has been imported. */
export interface UserStageReady {
  readonly kind: 'ready'
  readonly user: number
}

/** Everything that is posted to the main thread. */
export type UserStageMessage = UserStageValue | UserStageFailure | UserStageReady

/** Posts to the main thread. */
export type Post = (message: UserStageMessage) => void
