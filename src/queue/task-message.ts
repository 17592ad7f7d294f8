/**
 * What goes through the queue: a task as a plain line of a batch, and what became of it. Both ends check what they get, as anybody may write to a
 * Redis.
 */
import { hash } from 'node:crypto'
import type { Outcome } from '../batch/answerer.ts'
import { parseLine } from '../batch/parse-line.ts'
import { type BatchTask, isRefusal } from '../batch/task.ts'
import { ERROR_CODES, type ErrorCode, TandemError } from '../errors.ts'

/** Changes when programs of before and after cannot work together. */
export const PROTOCOL = 1

/** A task in the queue. */
export interface TaskMessage {
  readonly protocol: number
  /** Digest of the model that was named to the producer; null when it was given a model's id alone. */
  readonly digest: string | null
  /** A plain line, as JSON. */
  readonly line: string
}

/** A task with its options complete, as a message. */
export function encodeTask({ id, prompt, options }: BatchTask, digest: string | undefined): TaskMessage {
  const isConversation = typeof prompt !== 'string' && typeof prompt[0] === 'object'
  const line = JSON.stringify({ id, ...(isConversation ? { messages: prompt } : { prompt }), ...options })
  return { protocol: PROTOCOL, digest: digest ?? null, line }
}

/** The task of a message. Throws `ERR_QUEUE_VERSION`. */
export function decodeTask(message: unknown): { readonly task: BatchTask; readonly digest: string | null } {
  const { protocol, digest, line } = (message ?? {}) as Partial<TaskMessage>
  if (protocol !== PROTOCOL) throw otherVersion(`a task of protocol ${String(protocol)}, this is ${PROTOCOL}`)
  if (typeof line !== 'string' || (typeof digest !== 'string' && digest !== null)) throw otherVersion('a task without a line')
  const task = parseLine({ number: 1, text: line, end: 0, isWhole: true })
  if (isRefusal(task)) throw otherVersion(`a task that is none: ${task.message}`)
  return { task, digest }
}

/** Checks what a worker has sent. Throws `ERR_QUEUE_VERSION`. */
export function decodeOutcome(value: unknown): Outcome {
  const { text, finish, model, error, preemptions } = (value ?? {}) as Record<string, unknown>
  const count = isCount(preemptions) ? preemptions : 0
  if (error !== undefined) {
    const { code, message } = (error ?? {}) as Record<string, unknown>
    if (isErrorCode(code) && typeof message === 'string') return { error: { code, message }, preemptions: count }
  }
  const { finishReason, promptTokens, reusedTokens, tokens } = (finish ?? {}) as Record<string, unknown>
  const isFinish = (finishReason === 'stop' || finishReason === 'length') && [promptTokens, reusedTokens, tokens].every(isCount)
  if (typeof text !== 'string' || typeof model !== 'string' || !isFinish) throw otherVersion('a result that is none')
  return { text, finish: { finishReason, promptTokens, reusedTokens, tokens } as never, model, preemptions: count }
}

/** The name of a job's queue entry for a task: the same for the same task, in every run. */
export function entryId(job: string, message: TaskMessage): string {
  return `${job}/${hash('sha256', JSON.stringify(message), 'hex').slice(0, 32)}`
}

/** The job that an entry belongs to. */
export const jobOfEntry = (id: string): string => id.slice(0, Math.max(0, id.lastIndexOf('/')))

export const isErrorCode = (code: unknown): code is ErrorCode => typeof code === 'string' && Object.hasOwn(ERROR_CODES, code)

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0

const otherVersion = (what: string): TandemError =>
  new TandemError('ERR_QUEUE_VERSION', `the queue has ${what}; use the same version of Tandem everywhere`)
