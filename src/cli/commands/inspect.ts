/** `tandem inspect`: what is in a model file; with `--machine`, what there is to run it on. */
import type { Command } from 'commander'
import { TandemError } from '../../errors.ts'
import { openModelFile } from '../../gguf/open.ts'
import type { ModelFile } from '../../gguf/types.ts'
import { describeModel } from '../../model/describe.ts'
import { type Inspection, inspectModel, type PlainValue, type Share } from '../../model/inspect.ts'
import type { Model } from '../../model/types.ts'
import { addModelArgument, modelPath } from '../engine-options.ts'
import { describeMachine, machineRows } from '../inspect-machine.ts'
import type { Io } from '../io.ts'
import { bytesText, countText, quoted, table } from '../text.ts'

interface Flags {
  readonly machine?: true
  readonly json?: true
}

export function define(command: Command, io: Io): void {
  addModelArgument(command)
    .option('--machine', 'show this machine instead of a model')
    .option('--json', 'everything as one JSON object')
    .addHelpText('after', '\nExample:\n  $ tandem inspect model.gguf --json | jq .formats\n')
    .action((model: string | undefined, flags: Flags) => (flags.machine ? showMachine(flags, io) : showModel(model, flags, io)))
}

async function showMachine(flags: Flags, io: Io): Promise<void> {
  const machine = await io.during('asking the machine', describeMachine)
  return flags.json ? io.writeJson(machine) : io.write(table(machineRows(machine)))
}

async function showModel(model: string | undefined, flags: Flags, io: Io): Promise<void> {
  const file = await openModelFile(modelPath(model), { signal: io.signal })
  const inspection = inspectModel(file, describe(file, io))
  if (flags.json) return io.writeJson(inspection)
  return io.write(sections(inspection))
}

/** A file that Tandem cannot run is still worth looking at. */
function describe(file: ModelFile, io: Io): Model | undefined {
  try {
    return describeModel(file)
  } catch (error) {
    const { code, message } = TandemError.from(error)
    if (code === 'ERR_INTERNAL') throw error
    io.talk(`note: this model cannot be run. ${code}: ${quoted(message, 500)}`)
    return undefined
  }
}

const shareText = ({ tensors, parameters, bytes }: Share): string[] => [countText(tensors), countText(parameters), bytesText(bytes)]

function valueText(value: PlainValue): string {
  if (typeof value === 'string') return quoted(value)
  if (typeof value !== 'object') return String(value)
  if ('first' in value) return `[${value.first.map(valueText).join(', ')}, ...] ${countText(value.length)} in all`
  return Array.isArray(value) ? `[${value.map(valueText).join(', ')}]` : JSON.stringify(value)
}

function sections(inspection: Inspection): string {
  const { name, architecture, ggufVersion, bytes, paths, total, experts, expertsShare, formats, tensors } = inspection
  const right = (cells: readonly string[]): string[] => cells.map((cell) => cell.padStart(15))
  const title = `${quoted(name)}: ${architecture ?? 'unknown architecture'}, GGUF version ${ggufVersion}, ${paths.length === 1 ? '1 file' : `${paths.length} files`}, ${bytesText(bytes)}\n`
  const shares = table([
    ['', ...right(['tensors', 'parameters', 'size'])],
    ['all', ...right(shareText(total))],
    [`routed experts (${(100 * expertsShare).toFixed(0)} %)`, ...right(shareText(experts))],
    ...formats.map((each) => [each.format, ...right(shareText(each))]),
  ])
  const pairs = (record: object): string => table(Object.entries(record).map(([key, value]) => [key, valueText(value as PlainValue)]))
  const list = table([
    ['name', 'format', 'shape', 'size'],
    ...tensors.map((each) => [quoted(each.name).slice(1, -1), each.format, each.shape.join(' x '), bytesText(each.bytes)]),
  ])
  return [
    title,
    shares,
    ...(inspection.hyperparameters ? [`Hyperparameters\n${pairs(inspection.hyperparameters)}`] : []),
    `Metadata\n${pairs(inspection.metadata)}`,
    `Tensors\n${list}`,
  ].join('\n')
}
