/** `tandem sweep`: how fast prefill and decode are at every depth of the cache. */
import { access, constants, stat, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import type { Command } from 'commander'
import { planModel } from '../../engine/load-model.ts'
import { TandemError } from '../../errors.ts'
import { access as accessFile } from '../../gguf/reader.ts'
import { addEngineOptions, type EngineFlags, loadOptions, modelPath } from '../engine-options.ts'
import { readText } from '../input.ts'
import type { Io } from '../io.ts'
import { addProfileOption } from '../profile.ts'
import { type SweepRow, sweepShape } from '../sweep.ts'
import { compareResults, parseResults, type SweepResults } from '../sweep-compare.ts'
import { comparisonText } from '../sweep-compare-text.ts'
import { configurationsOf } from '../sweep-configurations.ts'
import { measurementNotes, sweepTitle } from '../sweep-notes.ts'
import { type MeasuredRow, type PlannedSweep, runSweeps } from '../sweep-run.ts'
import { type Series, sweepSvg } from '../sweep-svg.ts'
import { summarize, sweepHeading, sweepLine } from '../sweep-table.ts'
import { another, whole } from '../values.ts'

interface Flags extends Omit<EngineFlags, 'pipeline'> {
  readonly pipeline?: readonly string[]
  readonly tg?: number
  readonly repeat: number
  readonly svg?: string
  readonly compare?: readonly string[]
  readonly json?: true
}

const HELP = `
At 0, U, 2U, ... tokens in the cache, up to --context: --tg tokens are decoded and dropped again, then U = --ubatch tokens are prefilled that
stay. Random tokens, no sampling; times are seconds, speeds tokens per second. Several models or pipelines take turns, round by round of --repeat.

Examples:
  $ tandem sweep model.gguf -c 8192 --ubatch 512
  $ tandem sweep model.gguf --pipeline cpu --pipeline hybrid --repeat 3 --svg sweep.svg
  $ tandem sweep model.gguf --json > before.jsonl           and the same to after.jsonl, then
  $ tandem sweep --compare before.jsonl after.jsonl
`

export function define(command: Command, io: Io): void {
  addProfileOption(addEngineOptions(command))
    .option('--tg <n>', 'tokens to decode at each depth (default: a quarter of the ubatch)', whole(1))
    .option('--repeat <n>', 'sweeps; tables have medians and ranges', whole(1), 1)
    .option('--svg <file>', 'draw both speeds against the depth, a line per model and pipeline')
    .option('--compare <files...>', 'two files of sweep --json: how much faster the second is; measures nothing')
    .option(
      '--json',
      'a line per row: {"pp","tg","n_kv","t_pp","speed_pp","t_tg","speed_tg"}; "configuration" and "repeat" where there are several',
    )
    .addHelpText('after', HELP)
    .action((models: readonly string[], flags: Flags) =>
      flags.compare ? compare(models, flags.compare, flags, io) : run(models, flags, io),
    )
  // what other commands take once
  command.registeredArguments[0]!.variadic = true
  const pipeline = command.options.find(({ long }) => long === '--pipeline')!
  pipeline.argParser(another)
  pipeline.description += '; again for more'
}

async function run(models: readonly string[], flags: Flags, io: Io): Promise<void> {
  const { pipeline: pipelines = ['cpu'], ...others } = flags
  const { repeat, svg, json } = flags
  const paths = models.length > 0 ? models : [modelPath(undefined)]
  if (svg !== undefined) await checkWritable(svg)
  // planned first: nobody wants to wait for a model to load and then hear that the context is too small, or that the next model is not there
  const all: PlannedSweep[] = []
  for (const configuration of await configurationsOf(paths, pipelines, others)) {
    const { plan, machine } = await planModel(configuration.path, loadOptions(configuration.flags, io))
    all.push({ configuration, shape: sweepShape(plan.limits, flags.tg), plan, machine })
  }
  const measured = new Map(all.map((planned) => [planned, Array.from({ length: planned.shape.rows }, (): SweepRow[] => [])]))
  await runSweeps(all, repeat, io, async ({ planned, row, round }) => {
    const rows = measured.get(planned)![row.n_kv / row.pp]!
    rows.push(row)
    if (json) await io.writeJson(jsonRow({ planned, row, round }, all.length > 1, repeat > 1))
    else if (round === repeat) {
      // the table is written while the last sweep runs, with what the ones before have measured
      const label = all.length > 1 ? `${planned === all[0] ? '' : '\n'}${planned.configuration.label}\n` : ''
      const heading = row.n_kv === 0 ? label + sweepHeading(repeat > 1) : ''
      await io.write(heading + sweepLine(repeat > 1 ? summarize(rows) : row))
    }
  })
  if (svg === undefined) return
  const series = [...measured].map(([{ configuration }, depths]) => ({ label: configuration.label, rows: depths.map(summarize) }))
  await writeSvg(svg, sweepTitle(paths), measurementNotes(all, repeat), series, io)
}

/** The field's keys first: who reads them need not know of the others. */
function jsonRow({ planned, row, round }: MeasuredRow, isOneOfSeveral: boolean, isRepeated: boolean): object {
  const { label, path, pipeline } = planned.configuration
  return {
    ...row,
    ...(isOneOfSeveral ? { configuration: label, model: path, pipeline } : {}),
    ...(isRepeated ? { repeat: round } : {}),
  }
}

async function compare(models: readonly string[], files: readonly string[], { svg, json }: Flags, io: Io): Promise<void> {
  const [first, second] = files
  if (first === undefined || second === undefined || files.length > 2 || models.length > 0) {
    throw new TandemError('ERR_ARGUMENT', '--compare takes two files and no model: tandem sweep --compare before.jsonl after.jsonl')
  }
  if (svg !== undefined) await checkWritable(svg)
  const results = [parseResults(await readText(first, io.signal), first), parseResults(await readText(second, io.signal), second)] as const
  const { rows, notes } = compareResults(...results)
  for (const note of notes) io.talk(note)
  if (json) for (const { configuration, ...row } of rows) await io.writeJson(configuration === '' ? row : { ...row, configuration })
  else await io.write(comparisonText(rows, [first, second]))
  if (svg !== undefined) await writeSvg(svg, `${first} and ${second}`, [], results.flatMap(seriesOf), io)
}

function seriesOf({ name, configurations }: SweepResults): Series[] {
  return [...configurations].map(([label, rows]) => ({
    label: label === '' || configurations.size === 1 ? name : `${name}: ${label}`,
    rows,
  }))
}

/** Known before an hour has gone into measuring. Throws `ERR_FILE_ACCESS`. */
async function checkWritable(path: string): Promise<void> {
  const found = await stat(path).catch(() => undefined)
  if (found && !found.isFile()) throw new TandemError('ERR_FILE_ACCESS', `${path}: not a file; name one with --svg`)
  await accessFile(path, () => access(found ? path : dirname(path), constants.W_OK))
}

async function writeSvg(path: string, title: string, notes: readonly string[], series: readonly Series[], io: Io): Promise<void> {
  await accessFile(path, () => writeFile(path, sweepSvg({ title, notes, series })))
  io.talk(`drawn: ${path}`)
}
