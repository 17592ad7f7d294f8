/** `tandem batch`: a file of prompts in, a file of answers out, as many at a time as there is room for. */
import type { Command } from 'commander'
import { BatchJob } from '../../batch/job.ts'
import type { BatchProgress, BatchSummary } from '../../batch/progress.ts'
import { survey } from '../../batch/survey.ts'
import type { Refusal } from '../../batch/task.ts'
import type { Engine } from '../../engine/engine.ts'
import { TandemError } from '../../errors.ts'
import { progressText, summaryText } from '../batch-text.ts'
import { addEngineOptions, type EngineFlags, withEngine } from '../engine-options.ts'
import type { Io } from '../io.ts'
import { RefusalTalk } from '../refusal-talk.ts'
import { addSamplingOptions, samplingOptions, type SamplingFlags } from '../sampling-options.ts'
import { countText } from '../text.ts'
import { whole } from '../values.ts'

interface Flags extends EngineFlags, SamplingFlags {
  readonly output?: string
  readonly maxConcurrency: number
  readonly limit?: number
  readonly dryRun?: true
  readonly prefixSharing: boolean
  readonly json?: true
}

const CONCURRENCY = 32

const EXAMPLES = `
A line is {"id":"a","prompt":"..."}, with fields such as "maxTokens" or "temperature", or a line of OpenAI's batch API for /v1/chat/completions
or /v1/completions. The output has a line for each, in order of completion. Started again after whatever happened, the job goes on where it was.

Example:
  $ tandem batch in.jsonl -o out.jsonl                      with the bundled model
  $ tandem batch model.gguf in.jsonl.gz -o out.jsonl.gz --max-concurrency 64 --max-tokens 500
  $ tandem batch in.jsonl --dry-run                         only check the lines
`

export function define(command: Command, io: Io): void {
  // commander has no optional argument in front of another one: a single argument is the input
  addEngineOptions(command)
    .usage('[options] [model] <input>')
    .argument('[input]', 'a file of JSON lines, gzipped if its name ends with .gz')
    .option('-o, --output <path>', 'the file of answers; compressed if its name ends with .gz; an existing one is gone on with')
    .option('--max-concurrency <n>', 'tasks that are worked on at a time', whole(1, 4096), CONCURRENCY)
    .option('--limit <n>', 'only the first n tasks', whole(0))
    .option('--dry-run', 'check every line and load nothing')
    .option('--no-prefix-sharing', 'compute what prompts have in common for each of them')
    .option('--json', 'one line of JSON with the summary')
  addSamplingOptions(command)
    .addHelpText('after', EXAMPLES)
    .action((first: string | undefined, second: string | undefined, flags: Flags) =>
      second === undefined ? run(undefined, first, flags, io) : run(first, second, flags, io),
    )
}

async function run(model: string | undefined, input: string | undefined, flags: Flags, io: Io): Promise<void> {
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
  const onProgress = (now: BatchProgress): void => void (progress = now)
  const options = { ...inputOptions, output, maxConcurrency, defaults, sharePrefix, onProgress, onRefusal }
  const job = await checking((onChecked) => BatchJob.open({ ...options, onChecked }))
  try {
    refusals.end()
    if (job.earlier > 0) io.talk(`${output}: ${countText(job.earlier)} of ${countText(job.lines)} lines are there already`)
    const answer = (engine: Engine): Promise<BatchSummary> =>
      io.during('answering', (bar) => {
        bar.show((label) => (progress ? progressText(label, progress) : `${label} ...`))
        return job.run(engine)
      })
    const summary = job.completed ?? (await withEngine(model, flags, io, answer, { sequences: maxConcurrency }))
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
