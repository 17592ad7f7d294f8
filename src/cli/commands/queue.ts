/** `tandem queue`: how far the jobs at a queue are, seen from any machine. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Command } from 'commander'
import { TandemError } from '../../errors.ts'
import type { JobStatus, QueueStatus } from '../../queue/status.ts'
import type { Io } from '../io.ts'
import { addQueueOptions, type QueueFlags, withQueue } from '../queue-options.ts'
import { countText, table } from '../text.ts'
import { whole } from '../values.ts'

interface Flags extends QueueFlags {
  readonly watch?: number | true
  readonly remove?: string
  readonly json?: true
}

const WATCH_SECONDS = 2

const EXAMPLES = `
Example:
  $ tandem queue --queue redis://host:6379            jobs and workers as they are now
  $ tandem queue --queue redis://host --watch         again and again
  $ tandem queue --queue redis://host --remove out.jsonl-3fa9c2
                                                      throw away what a job has in Redis: its producer will not come again
`

export function define(command: Command, io: Io): void {
  addQueueOptions(command, 'the Redis to look at: redis://[user:password@]host[:port][/database]')
    .option('--watch [seconds]', `look every so many seconds (${WATCH_SECONDS})`, whole(1, 3600))
    .option('--remove <job>', 'take the lines of a job out of Redis; its output stays as it is')
    .option('--json', 'one line of JSON each time')
    .addHelpText('after', EXAMPLES)
    .action((flags: Flags) => run(flags, io))
}

async function run(flags: Flags, io: Io): Promise<void> {
  await withQueue(flags, io, async (connection) => {
    const { queueStatus, removeJob } = await import('../../queue/status.ts')
    if (flags.remove !== undefined) {
      const removed = await removeJob(connection, flags.remove)
      if (removed === undefined) throw new TandemError('ERR_ARGUMENT', `remove: there is no job ${flags.remove} at ${connection.shown}`)
      return io.talk(`${flags.remove}: ${countText(removed)} lines taken out of the queue`)
    }
    const seconds = flags.watch === true ? WATCH_SECONDS : flags.watch
    for (;;) {
      const status = await untilLost(queueStatus(connection), connection.failed)
      await (flags.json ? io.writeJson(status) : io.write(statusText(status)))
      if (seconds === undefined) return
      await sleep(seconds * 1000, undefined, { signal: AbortSignal.any([io.signal, connection.failed]) }).catch(() => undefined)
      connection.failed.throwIfAborted()
      io.signal.throwIfAborted()
      if (!flags.json) await io.write('\n')
    }
  })
}

/** Redis may be away for ever. */
async function untilLost<Value>(work: Promise<Value>, lost: AbortSignal): Promise<Value> {
  const { promise, reject } = Promise.withResolvers<never>()
  lost.addEventListener('abort', () => reject(lost.reason), { once: true })
  return Promise.race([work, promise])
}

function statusText({ jobs, workers }: QueueStatus): string {
  const jobRows = jobs.map((job) => [
    job.job,
    job.modelId,
    job.waiting,
    job.active,
    doneText(job),
    job.failed,
    rateText(job),
    stateText(job),
  ])
  const workerRows = workers.map((worker) => [
    `${worker.host}:${worker.pid}`,
    worker.modelId,
    `${worker.active} of ${worker.concurrency}`,
    worker.answered,
    worker.tokensPerSecond.toFixed(0),
    worker.version,
  ])
  const jobTable = table([['job', 'model', 'waiting', 'active', 'done', 'failed', 'tokens/s', 'state'], ...jobRows])
  const workerTable = table([['worker', 'model', 'active', 'answered', 'tokens/s', 'version'], ...workerRows])
  return `${jobs.length > 0 ? jobTable : 'no jobs\n'}\n${workers.length > 0 ? workerTable : 'no workers\n'}`
}

const doneText = ({ done, total }: JobStatus): string => `${countText(done)} of ${countText(total)}`

const rateText = (job: JobStatus): string => (job.isProduced || job.isComplete ? job.tokensPerSecond.toFixed(0) : '')

function stateText({ isComplete, isProduced, workers, host, pid }: JobStatus): string {
  if (isComplete) return 'complete'
  if (!isProduced) return `its producer has ended (${host}); start it again, or --remove`
  return workers > 0 ? `produced by ${host}:${pid}` : `produced by ${host}:${pid}; no worker has the model`
}
