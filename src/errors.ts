/** One error class and one table of codes for the whole package; `docs/errors.md` is tested against the table. */

/** What every code means and what a person can do about it. Keys are stable: programs may switch on them. */
export const ERROR_CODES = {
  // model files
  ERR_FILE_ACCESS: 'A file could not be opened, read or written.',
  ERR_GGUF_MAGIC: 'The file is not a GGUF file.',
  ERR_GGUF_VERSION: 'The GGUF version is not 2 or 3, or the file is big-endian.',
  ERR_GGUF_TRUNCATED: 'The file ends before the data its header promises.',
  ERR_GGUF_LIMIT: 'A count, length or dimension in the file is beyond any real model.',
  ERR_GGUF_INVALID: 'The header contradicts itself: bad value types, duplicate names, misaligned or overlapping tensors.',
  ERR_GGUF_SHARD: 'A shard of a split model is missing or does not belong to the others.',
  ERR_FORMAT_UNSUPPORTED: 'A tensor uses a quantisation format that the chosen executor does not support.',
  ERR_WEIGHT_NOT_FINITE: 'A weight or a quantisation scale is NaN or infinite.',
  // sidecar files
  ERR_SIDECAR_STALE: 'The repacked file belongs to another state of the model, or to another version of Tandem; write it again.',
  ERR_SIDECAR_INVALID: 'The file is not a repacked model, or it is damaged or incomplete; write it again.',
  // model
  ERR_ARCH_UNKNOWN: 'The model architecture is not one that Tandem knows.',
  ERR_HPARAMS_INVALID: 'A hyperparameter is missing, of the wrong type, or out of range.',
  ERR_TENSOR_MISSING: 'A tensor that the architecture needs is not in the file.',
  ERR_TENSOR_SHAPE: 'A tensor has another shape than the hyperparameters call for.',
  ERR_TENSOR_UNEXPECTED: 'The file has a tensor that the architecture does not use; leaving it out would change the results.',
  // text
  ERR_TOKENIZER_UNSUPPORTED: 'The vocabulary kind or pre-tokenizer of the file is not supported.',
  ERR_TOKENIZER_INVALID: 'The vocabulary in the file is inconsistent.',
  ERR_TEMPLATE: 'The chat template is missing, does not parse, or fails on these messages.',
  // plan
  ERR_PIPELINE_INVALID: 'The pipeline or placement is not valid for this model.',
  ERR_DEVICE_ABSENT: 'The pipeline asks for an executor that this machine or build does not have.',
  ERR_MEMORY: 'The model with its context does not fit in the memory that is available.',
  ERR_ARENA_LIMIT: 'One unit of weights is larger than an arena may be.',
  // batch jobs
  ERR_BATCH_INPUT: 'The input of a batch job cannot be worked on: an id is there twice, or the file has changed meanwhile.',
  ERR_BATCH_LINE: 'A line of a batch job is not a task; the message says what is wrong with it. The other lines are worked on.',
  ERR_BATCH_OUTPUT: 'The output of a batch job is in use, damaged, or has answers to another input.',
  ERR_BATCH_FAILED: 'The batch job is complete, and some of its lines could not be answered.',
  // queues
  ERR_QUEUE_CONNECTION:
    'Redis cannot be reached, refuses the login, or was away for longer than the deadline; start again, nothing is lost.',
  ERR_QUEUE_JOB: 'Another producer has the job of that name.',
  ERR_QUEUE_MODEL: 'Producers and workers mean different model files by the same model id.',
  ERR_QUEUE_VERSION: 'The queue is used by another version of Tandem, or holds what no version has written.',
  // run
  ERR_ARGUMENT: 'An argument or option is missing, of the wrong type, or out of range.',
  ERR_CONTEXT_OVERFLOW: 'The prompt does not fit in the context.',
  ERR_KV_EXHAUSTED: 'No free block is left in the KV cache.',
  ERR_USER_STAGE: 'A user stage of the pipeline failed: its module, its function, or the values that it returned.',
  ERR_BUSY: 'The session is still working on an earlier call.',
  ERR_TOKEN_RANGE: 'A token id is outside the vocabulary.',
  ERR_NOT_FINITE: 'The model produced NaN or infinite logits.',
  ERR_ABORTED: 'The operation was aborted by its signal.',
  ERR_CLOSED: 'The engine or session has been closed.',
  ERR_TIMEOUT: 'A wait reached its deadline.',
  ERR_POISONED: 'The executor stopped because another part of it failed.',
  ERR_WORKER_DIED: 'A worker thread ended unexpectedly.',
  ERR_KERNEL: 'A kernel refused its arguments.',
  ERR_DEVICE: 'The GPU or its driver reported an error; close the engine and load the model again.',
  ERR_DEVICE_LOST: 'The GPU context of this process is lost: only a new process can use the GPU again.',
  ERR_INTERNAL: 'A rule inside Tandem was broken; please report it.',
} as const

/** A stable error code. */
export type ErrorCode = keyof typeof ERROR_CODES

/** An error as plain data. `structuredClone` loses `code`, so records cross threads instead of errors. */
export interface ErrorRecord {
  readonly code: ErrorCode
  readonly message: string
  readonly stack?: string
}

const MARKER = Symbol.for('tandem.error')

/** The only error class that Tandem throws on purpose. */
export class TandemError extends Error {
  override readonly name = 'TandemError'
  readonly code: ErrorCode
  readonly [MARKER] = true

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options)
    this.code = code
  }

  /** True for errors of this class, also from another copy of the package. */
  static is(value: unknown): value is TandemError {
    return typeof value === 'object' && value !== null && (value as Record<symbol, unknown>)[MARKER] === true
  }

  /** Wraps anything thrown; a `TandemError` passes through unchanged. */
  static from(value: unknown, code: ErrorCode = 'ERR_INTERNAL'): TandemError {
    if (TandemError.is(value)) return value
    return new TandemError(code, value instanceof Error ? value.message : String(value), { cause: value })
  }

  /** Plain data for `postMessage`. */
  toRecord(): ErrorRecord {
    return { code: this.code, message: this.message, ...(this.stack === undefined ? {} : { stack: this.stack }) }
  }

  /** The error that a record stands for. */
  static fromRecord(record: ErrorRecord): TandemError {
    const error = new TandemError(record.code, record.message)
    if (record.stack !== undefined) error.stack = record.stack
    return error
  }
}

/** Throws `ERR_INTERNAL` when a rule of ours is broken; never for a user's mistake. */
export function invariant(condition: unknown, message: string): asserts condition {
  if (!condition) throw new TandemError('ERR_INTERNAL', message)
}
