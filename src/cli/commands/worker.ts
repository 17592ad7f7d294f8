/** `tandem worker`: lines of batch jobs from a queue, on as many machines as there are. */
import type { Command } from 'commander'
import { EngineAnswerer } from '../../batch/engine-answerer.ts'
import type { Engine } from '../../engine/engine.ts'
import type { WorkerProgress } from '../../queue/worker.ts'
import { durationText } from '../batch-text.ts'
import { addEngineOptions, modelPath, withEngine } from '../engine-options.ts'
import type { Io } from '../io.ts'
import { addModelId, addQueueOptions, type QueueFlags, withQueue } from '../queue-options.ts'
import { addTaskOptions, type TaskFlags } from '../task-options.ts'
import { countText } from '../text.ts'
import { whole } from '../values.ts'

interface Flags extends TaskFlags, QueueFlags {
  readonly modelId?: string
  readonly lock: number
  readonly grace: number
  readonly idle?: number
  readonly json?: true
}

const LOCK_SECONDS = 30
const GRACE_SECONDS = 10

const EXAMPLES = `
Ctrl-C, or SIGTERM: no further lines are taken, those begun are finished within --grace, the rest goes back to the queue. A second one ends at once,
and the other workers take the lines over after --lock.

Example:
  $ tandem worker model.gguf --queue redis://host:6379
  $ TANDEM_QUEUE=rediss://user:password@host/2 tandem worker model.gguf --max-concurrency 64
  $ tandem worker model.gguf --queue redis://host --idle 60   ends when there was nothing to do for a minute
`

export function define(command: Command, io: Io): void {
  addTaskOptions(addEngineOptions(command))
  addModelId(addQueueOptions(command, 'the Redis with the lines: redis://[user:password@]host[:port][/database]'))
    .option(
      '--lock <seconds>',
      'a worker that is silent for so long is taken for dead, and its lines are given to others',
      whole(1, 3600),
      LOCK_SECONDS,
    )
    .option('--grace <seconds>', 'time to finish lines when the worker is asked to end', whole(0, 86_400), GRACE_SECONDS)
    .option('--idle <seconds>', 'end when there was no work for so long (default: wait for more)', whole(1))
    .option('--json', 'one line of JSON with what was done')
    .addHelpText('after', EXAMPLES)
    .action((model: string | undefined, flags: Flags) => run(model, flags, io))
}

async function run(model: string | undefined, flags: Flags, io: Io): Promise<void> {
  await withQueue(flags, io, async (connection) => {
    const [{ QueueWorker }, { identifyModel }, { checkName }] = await Promise.all([
      import('../../queue/worker.ts'),
      import('../../queue/model-identity.ts'),
      import('../../queue/keys.ts'),
    ])
    const identity = await identifyModel(modelPath(model), flags.modelId && checkName('modelId', flags.modelId))
    await QueueWorker.check(connection, identity)
    const work = (engine: Engine): Promise<WorkerProgress> =>
      io.during('working', async (bar) => {
        const answerer = new EngineAnswerer(engine, { sharePrefix: flags.prefixSharing })
        const seconds = (value: number | undefined): number | undefined => (value === undefined ? undefined : value * 1000)
        let active = 0
        const worker = new QueueWorker(connection, answerer, {
          model: identity,
          lockMs: seconds(flags.lock),
          graceMs: seconds(flags.grace),
          idleMs: seconds(flags.idle),
          onProgress: (progress) => {
            active = progress.active
            bar.show((label) => `${label}: ${progressText(progress)}`)
          },
          signal: io.signal,
        })
        io.talk(`${identity.modelId} at ${connection.shown}: ${answerer.concurrency} lines at a time; Ctrl-C ends`)
        const onEnd = (): void => {
          if (active > 0) io.talk(`finishing what is begun, for at most ${flags.grace} s; again to end at once`)
        }
        io.signal.addEventListener('abort', onEnd, { once: true })
        return worker.run()
      })
    const done = await withEngine(model, flags, io, work, { sequences: flags.maxConcurrency })
    io.talk(summaryText(done))
    if (flags.json) await io.writeJson(done)
    // to be asked to end is how a worker ends
    io.interruption.settle()
  })
}

const progressText = ({ active, answered, failed, tokensPerSecond }: WorkerProgress): string =>
  `${countText(active)} lines, ${countText(answered)} answered, ${countText(failed)} failed, ${tokensPerSecond.toFixed(0)} tokens/s`

function summaryText({ answered, failed, returned, tokens, seconds }: WorkerProgress): string {
  const lines = `${countText(answered)} lines answered, ${countText(failed)} failed, ${countText(returned)} given back`
  return `${lines}, ${countText(tokens)} tokens in ${durationText(seconds * 1000)} (${(tokens / seconds).toFixed(1)}/s)`
}
