/** `tandem plan`: the placement and the program, before anything is loaded. */
import type { Command } from 'commander'
import { type PlannedModel, planModel } from '../../engine/load-model.ts'
import { TandemError } from '../../errors.ts'
import { checkMemory } from '../../placement/plan.ts'
import { addEngineOptions, type EngineFlags, loadOptions, modelPath } from '../engine-options.ts'
import type { Io } from '../io.ts'
import { blocksOf, stagesOf } from '../stage-table.ts'
import { bytesText, countText, quoted, table } from '../text.ts'

interface Flags extends EngineFlags {
  readonly json?: true
}

export function define(command: Command, io: Io): void {
  addEngineOptions(command)
    .option('--json', '{"devices":[{"id","bytes",...}],"stages":[...]}')
    .addHelpText('after', '\nExample:\n  $ tandem plan model.gguf --pipeline cpu --context 8192\n')
    .action((model: string | undefined, flags: Flags) => run(model, flags, io))
}

async function run(model: string | undefined, flags: Flags, io: Io): Promise<void> {
  const planned = await planModel(modelPath(model), loadOptions(flags, io))
  const stages = stagesOf(planned.program, planned.plan)
  if (flags.json) await io.writeJson({ devices: planned.plan.devices, stages })
  else await io.write(`${headText(planned)}\n${devicesText(planned)}\n${table(blocksOf(stages))}`)
  try {
    checkMemory(planned.plan, planned.machine)
  } catch (error) {
    io.talk(`note: this plan does not fit here now: ${TandemError.from(error).message}`)
  }
}

function headText({ model, plan, program }: PlannedModel): string {
  const { contextTokens, ubatch, threads } = plan.limits
  return table([
    ['model', `${quoted(model.name)} (${model.architecture})`],
    ['pipeline', plan.pipeline.name],
    ['context', `${countText(contextTokens)} tokens`],
    ['ubatch', `${countText(ubatch)} tokens`],
    ['threads', `${threads}`],
    ['arenas', `${plan.arenas.length}`],
    ['program', `${program.calls.length} calls for ${model.layers.length} layers`],
  ])
}

function devicesText({ plan }: PlannedModel): string {
  const size = (bytes: number): string => bytesText(bytes).padStart(10)
  return table([
    ['device', ...['in all', 'weights', 'KV cache', 'buffers'].map((cell) => cell.padStart(10))],
    ...plan.devices.map(({ id, bytes, weights, kvCache, buffers }) => [id, size(bytes), size(weights), size(kvCache), size(buffers)]),
  ])
}
