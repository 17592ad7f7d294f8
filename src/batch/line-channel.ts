/** Tells of a job's lines, where a program listens or a person debugs. */
import { type MessageChannel, messageChannel } from '../diagnostics/channels.ts'
import { debugLog } from '../diagnostics/debug.ts'
import type { Answered, LineError } from './answerer.ts'
import type { Address } from './task.ts'

/** A line that is done: a message of the channel `tandem:batch:line`. Exactly one of `finish` and `error` is there. */
export interface BatchLineMessage {
  /** Of its input, from 1. */
  readonly line: number
  /** Undefined when it has none that can be used. */
  readonly id: string | number | undefined
  readonly finish?: Answered['finish']
  readonly error?: LineError
}

const channel: MessageChannel<BatchLineMessage> = messageChannel('tandem:batch:line')
const debug = debugLog('batch')

/** A line's answer or error is about to be written. */
export function tellLine({ line, id }: Address, outcome: Pick<BatchLineMessage, 'finish' | 'error'>): void {
  const { finish, error } = outcome
  if (channel.hasSubscribers) channel.publish({ line, id, ...(finish ? { finish } : {}), ...(error ? { error } : {}) })
  if (error) debug?.(`line ${line} failed: ${error.code}: ${error.message}`)
}
