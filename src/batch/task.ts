/** What a line of a batch asks for. */
import type { GenerateOptions, Prompt } from '../engine/generate.ts'
import type { ErrorCode } from '../errors.ts'

/** `plain`: `{"id","prompt"}`; `chat` and `completion`: OpenAI's batch lines for their two urls; `unknown`: not told from the line. */
export type BatchForm = 'plain' | 'chat' | 'completion' | 'unknown'

/** What of `GenerateOptions` a line may set. */
export type TaskOptions = Omit<GenerateOptions, 'signal' | 'onPrefill' | 'sharePrefix'>

/** Where an answer or an error goes. */
export interface Address {
  readonly form: BatchForm
  /** Undefined when the line has none that can be used. */
  readonly id: string | number | undefined
  readonly line: number
}

/** Work to do. */
export interface BatchTask extends Address {
  readonly prompt: Prompt
  readonly options: TaskOptions
}

/** A line that cannot be worked on. */
export interface Refusal extends Address {
  readonly message: string
  /** The field that is wrong, if it is one. */
  readonly field: string | undefined
}

export const isRefusal = (parsed: BatchTask | Refusal): parsed is Refusal => 'message' in parsed

/** Failures that are the task's own; all others end the job. */
export const TASK_ERRORS: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  ...(['ERR_ARGUMENT', 'ERR_CONTEXT_OVERFLOW', 'ERR_KV_EXHAUSTED', 'ERR_TEMPLATE', 'ERR_TOKEN_RANGE'] as const),
  ...(['ERR_TOKENIZER_INVALID', 'ERR_NOT_FINITE'] as const),
])
