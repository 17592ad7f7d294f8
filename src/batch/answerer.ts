/** What a job gets its answers from: an engine, or machines elsewhere. Types only. */
import type { Finish } from '../engine/generate.ts'
import type { ErrorCode } from '../errors.ts'
import type { BatchTask } from './task.ts'

/** Why a line was not answered. */
export interface LineError {
  readonly code: ErrorCode
  readonly message: string
  readonly field?: string | undefined
}

/** An answer. */
export interface Answered {
  readonly text: string
  readonly finish: Pick<Finish, 'finishReason' | 'promptTokens' | 'reusedTokens' | 'tokens'>
  /** Name of the model. */
  readonly model: string
}

/** What became of a task, and how often its part of the cache was given to an older one. */
export type Outcome = (Answered | { readonly error: LineError }) & { readonly preemptions: number }

/** Answers tasks, several at a time. */
export interface Answerer {
  /** Tasks that it takes at a time. */
  readonly concurrency: number
  /** Resolves when there is room for one more task, or when the signal fires; where it is missing, the concurrency says it all. */
  admit?(signal: AbortSignal): Promise<void>
  /** Answers a task whose options are complete; `onTokens` hears how many more were generated. Rejects when the whole job cannot go on. */
  answer(task: BatchTask, signal: AbortSignal, onTokens: (count: number) => void): Promise<Outcome>
  /** Called when the line of a task is on the output's disk; where it is missing, nobody waits for that. */
  written?(task: BatchTask): Promise<void>
}
