/** Entries of a queue that are done with, one way or the other. */
import type { Outcome } from '../batch/answerer.ts'
import { TandemError } from '../errors.ts'
import type { Queue } from './packages.ts'
import { decodeOutcome, isErrorCode } from './task-message.ts'

/** Workers died of it again and again: BullMQ gave it up. */
export const POISON = Symbol('poison')

/** The task's outcome; what ends the whole job is an error. */
export type Settled = Outcome | typeof POISON

/** So many are asked for at a time. */
const CHUNK = 64

/** Fetches what became of entries; those that are gone are left out. */
export async function* fetchSettled(
  queue: Queue,
  names: readonly string[],
): AsyncGenerator<[string, Settled | TandemError], void, undefined> {
  for (let begin = 0; begin < names.length; begin += CHUNK) {
    const chunk = names.slice(begin, begin + CHUNK)
    const jobs = await Promise.all(chunk.map((name) => queue.getJob(name)))
    for (const [index, job] of jobs.entries()) {
      if (job) yield [chunk[index]!, job.failedReason ? failureOf(job.failedReason) : outcomeOf(job.returnvalue)]
    }
  }
}

function outcomeOf(value: unknown): Outcome | TandemError {
  try {
    return decodeOutcome(value)
  } catch (error) {
    return TandemError.from(error)
  }
}

/** Workers write `CODE: message`; the rest is BullMQ's own. */
function failureOf(reason: string): typeof POISON | TandemError {
  const [, code, message = ''] = /^(ERR_[A-Z_]+): (.*)$/s.exec(reason) ?? []
  if (isErrorCode(code)) return new TandemError(code, `a worker: ${message}`)
  return /stalled/.test(reason) ? POISON : new TandemError('ERR_INTERNAL', `a worker failed: ${reason}`)
}
