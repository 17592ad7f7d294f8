/** What the threads of user stages and the main thread say to each other, and the words that they share. */
import type { MessagePort } from 'node:worker_threads'
import type { ErrorRecord } from '../../errors.ts'
import type { Program } from '../../pipeline/program.ts'
import { ringWords } from '../../ring/ring.ts'

/** Words of an observer's queue; word 0 is its poison word: set when nobody reads it any more. Records follow on the next 64 bytes. */
export const QUEUE = { dropped: 16, ring: 32 } as const

/** Byte offset of a queue's first record. */
export const queueRecords = (depth: number): number => (QUEUE.ring + ringWords(depth)) * 4

/** What worker 0 of the pool needs: where to post, and the queue of every user stage that observes. */
export interface UserStageTask {
  readonly port: MessagePort
  readonly queues: readonly (SharedArrayBuffer | undefined)[]
}

/** What an observer's thread needs. */
export interface ObserverTask {
  readonly program: Pick<Program, 'shape' | 'step' | 'ubatch' | 'outputs' | 'arena' | 'calls' | 'userStages'>
  /** Index in `Program.userStages`. */
  readonly user: number
  readonly queue: SharedArrayBuffer
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

/** An observer's function has been imported. */
export interface UserStageReady {
  readonly kind: 'ready'
  readonly user: number
}

/** Everything that is posted to the main thread. */
export type UserStageMessage = UserStageValue | UserStageFailure | UserStageReady
