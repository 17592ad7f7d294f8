/** `tandem batch`: a file of prompts in, a file of answers out, as many at a time as there is room for. */
import { Command } from 'commander'
import { BatchJob } from '../../batch/job.ts'
import type { BatchProgress, BatchSummary } from '../../batch/progress.ts'
import { survey } from '../../batch/survey.ts'
import type { Refusal } from '../../batch/task.ts'
import type { Engine } from '../../engine/engine.ts'
import { TandemError } from '../../errors.ts'
import type { BatchProducer, ProducerFlags } from '../batch-producer.ts'
import { progressText, summaryText } from '../batch-text.ts'
import { addEngineOptions, withEngine } from '../engine-options.ts'
import type { Io } from '../io.ts'
import { addModelId, addQueueOptions, type QueueFlags, withQueue } from '../queue-options.ts'
import { RefusalTalk } from '../refusal-talk.ts'
import { addSamplingOptions, samplingOptions, type SamplingFlags } from '../sampling-options.ts'
import { addTaskOptions, type TaskFlags } from '../task-options.ts'
import { countText } from '../text.ts'
import { whole } from '../values.ts'

interface Flags extends TaskFlags, SamplingFlags, QueueFlags, ProducerFlags {
  readonly output?: string
  readonly limit?: number
  readonly dryRun?: true
  readonly producer?: true
  readonly json?: true
}

/** Lines in Redis: enough for some workers to have theirs, and the next ones waiting. */
const QUEUE_LINES = 1024

/** Options that only those who have an engine can follow. */
const engineFlags = (): string[] => addTaskOptions(addEngineOptions(new Command())).options.map((option) => option.attributeName())

const EXAMPLES = `
A line is {"id":"a","prompt":"..."}, with fields such as "maxTokens" or "temperature", or a line of OpenAI's batch API for /v1/chat/completions
or /v1/completions. The output has a line for each, in order of completion. Started again after whatever happened, the job goes on where it was.

Example:
  $ tandem batch in.jsonl -o out.jsonl                      with the bundled model
  $ tandem batch model.gguf in.jsonl.gz -o out.jsonl.gz --max-concurrency 64 --max-tokens 500
  $ tandem batch in.jsonl --dry-run                         only check the lines
  $ tandem batch in.jsonl -o out.jsonl --queue redis://host --producer
                                                            the work is done by tandem worker, on as many machines as there are
`

export function define(command: Command, io: Io): void {
  // commander has no optional argument in front of another one: a single argument is the input
  addEngineOptions(command)
    .usage('[options] [model] <input>')
    .argument('[input]', 'a file of JSON lines, gzipped if its name ends with .gz')
    .option('-o, --output <path>', 'the file of answers; compressed if its name ends with .gz; an existing one is gone on with')
    .option('--limit <n>', 'only the first n tasks', whole(0))
    .option('--dry-run', 'check every line and load nothing')
    .option('--json', 'one line of JSON with the summary')
  addTaskOptions(command)
  command
    .option('--producer', 'compute nothing here: put the lines into the queue, for tandem worker, and collect the answers')
    .option('--job <name>', "the job's name in the queue (default: after the output)")
    .option('--queue-lines <n>', 'most lines that are in the queue at a time', whole(1, 100_000), QUEUE_LINES)
  addModelId(addQueueOptions(command, 'the Redis where producer and workers meet: redis://[user:password@]host[:port][/database]'))
  addSamplingOptions(command)
    .addHelpText('after', EXAMPLES)
    .action((first: string | undefined, second: string | undefined, flags: Flags) => {
      checkProducerFlags(command, flags)
      return second === undefined ? start(undefined, first, flags, io) : start(first, second, flags, io)
    })
}

/** Throws `ERR_ARGUMENT` for options that do not go together: they would be ignored. */
function checkProducerFlags(command: Command, { producer, queue, dryRun: isDry }: Flags): void {
  const isAsked = (name: string): boolean => command.getOptionValueSource(name) === 'cli'
  if (producer && queue === undefined) throw new TandemError('ERR_ARGUMENT', 'queue: must be given with --producer')
  const orphan = producer ? undefined : ['queue', 'job', 'modelId', 'queueLines', 'reconnect'].find(isAsked)
  if (orphan !== undefined && !isDry) throw new TandemError('ERR_ARGUMENT', `${orphan}: must be given together with --producer`)
  const engineFlag = producer ? engineFlags().find(isAsked) : undefined
  if (engineFlag !== undefined) throw new TandemError('ERR_ARGUMENT', `${engineFlag}: must be given to tandem worker, which has the model`)
}

/** Redis is connected to before a long input is read. */
async function start(model: string | undefined, input: string | undefined, flags: Flags, io: Io): Promise<void> {
  if (!flags.producer || flags.dryRun) return run(model, input, flags, io)
  await withQueue(flags, io, async (connection) => {
    const { BatchProducer: Producer } = await import('../batch-producer.ts')
    await run(model, input, flags, io, await Producer.open(connection, model, flags, io))
  })
}

async function run(model: string | undefined, input: string | undefined, flags: Flags, io: Io, producer?: BatchProducer): Promise<void> {
  if (input === undefined) throw new TandemError('ERR_ARGUMENT', 'there is no input: name a file of JSON lines')
  const refusals = new RefusalTalk(input, io)
  const inputOptions = { input, limit: flags.limit, signal: io.signal }
  const defaults = samplingOptions(flags)
  const onRefusal = (refusal: Refusal): void => refusals.tell(refusal)
  /** Does some work under a bar that says how many lines have been checked. */
  const checking = <Result>(work: (onChecked: (lines: number) => void) => Promise<Result>): Promise<Result> =>
    io.during('checking', (bar) => work((lines) => bar.show((label) => `${label}: ${countText(lines)} lines`)))
  if (flags.dryRun) {
    const found = await checking((onChecked) => survey({ ...inputOptions, onChecked }, onRefusal))
    return dryRun(found, refusals, flags, input, io)
  }
  if (flags.output === undefined) throw new TandemError('ERR_ARGUMENT', '--output is missing: name the file of answers with -o')

  const { output, maxConcurrency, prefixSharing: sharePrefix } = flags
  let progress: BatchProgress | undefined
  const onProgress = (now: BatchProgress): void => {
    progress = now
    producer?.report(now)
  }
  const options = { ...inputOptions, output, maxConcurrency, defaults, sharePrefix, onProgress, onRefusal }
  const job = await checking((onChecked) => BatchJob.open({ ...options, onChecked }))
  try {
    refusals.end()
    if (job.earlier > 0) io.talk(`${output}: ${countText(job.earlier)} of ${countText(job.lines)} lines are there already`)
    const answering = (work: () => Promise<BatchSummary>): Promise<BatchSummary> =>
      io.during('answering', (bar) => {
        bar.show((label) => (progress ? progressText(label, progress) : `${label} ...`))
        return work()
      })
    const compute = (engine: Engine): Promise<BatchSummary> => answering(() => job.run(engine))
    const answer = (): Promise<BatchSummary> =>
      producer ? answering(() => producer.run(job, output)) : withEngine(model, flags, io, compute, { sequences: maxConcurrency })
    const summary = job.completed ?? (await answer())
    io.talk(summaryText(summary))
    if (flags.json) await io.writeJson(summary)
    if (summary.failed > 0) {
      const counts = `${countText(summary.failed)} of ${countText(summary.lines)} lines`
      throw new TandemError('ERR_BATCH_FAILED', `${counts} failed: see "error" in ${output}`)
    }
  } finally {
    await job.close()
  }
}

async function dryRun(
  { lines, invalid }: { lines: number; invalid: number },
  refusals: RefusalTalk,
  flags: Flags,
  input: string,
  io: Io,
): Promise<void> {
  refusals.end()
  io.talk(`${input}: ${countText(lines)} lines, ${countText(invalid)} of them not valid`)
  if (flags.json) await io.writeJson({ lines, valid: lines - invalid, invalid })
  if (invalid > 0) throw new TandemError('ERR_BATCH_LINE', `${input}: ${countText(invalid)} of ${countText(lines)} lines are not valid`)
}
