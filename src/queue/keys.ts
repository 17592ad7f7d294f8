/** Names in Redis: everything of ours begins with `tandem:`, BullMQ's with `tandem-queue:`. */
import type { QueueConnection } from './connection.ts'
import { TandemError } from '../errors.ts'
import type { Queue } from './packages.ts'

export const BULLMQ_PREFIX = 'tandem-queue'
export const PROTOCOL_KEY = 'tandem:protocol'

/** Who produces a job. */
export const ownerKey = (job: string): string => `tandem:owner:${job}`

const NAME = /^[A-Za-z0-9._-]{1,100}$/

/** Names of jobs and ids of models become parts of keys. Throws `ERR_ARGUMENT`. */
export function checkName(option: 'job' | 'modelId', name: string): string {
  if (NAME.test(name)) return name
  throw new TandemError(
    'ERR_ARGUMENT',
    `${option}: must be of 1 to 100 letters, digits, dots, dashes and underscores, not ${JSON.stringify(name)}`,
  )
}

/** A text as a name: what may not be in one becomes a dash. */
export const asName = (text: string): string =>
  text
    .replaceAll(/[^A-Za-z0-9._]+/g, '-')
    .replaceAll(/^-+|-+$/g, '')
    .slice(0, 60) || 'unnamed'

/** Entries that nobody has come for in so long are thrown away, s. */
export const KEEP_SECONDS = 7 * 24 * 3600

/** The queue of a model: only workers that have the model look into it. */
export function queueOf({ packages, redis }: QueueConnection, modelId: string): Queue {
  const queue = new packages.Queue(modelId, {
    connection: redis,
    prefix: BULLMQ_PREFIX,
    // the console is the command's; the connection has been checked
    skipVersionCheck: true,
    // events carry the answers once more, and nobody reads them
    streams: { events: { maxLen: 1 } },
    defaultJobOptions: { removeOnComplete: { age: KEEP_SECONDS }, removeOnFail: { age: KEEP_SECONDS } },
  })
  // what goes wrong with the connection is told by the connection
  queue.on('error', () => undefined)
  return queue
}
