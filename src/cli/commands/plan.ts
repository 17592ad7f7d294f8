/** `tandem plan`: the placement and the program, before anything is loaded. */
import type { Command } from 'commander'
import { type PlannedModel, planModel } from '../../engine/load-model.ts'
import { TandemError } from '../../errors.ts'
import { checkMemory } from '../../placement/memory.ts'
import type { Plan } from '../../placement/types.ts'
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
    .addHelpText('after', '\nExample:\n  $ tandem plan model.gguf --pipeline hybrid --gpu-memory 24GiB\n')
    .action((model: string | undefined, flags: Flags) => run(model, flags, io))
}

async function run(model: string | undefined, flags: Flags, io: Io): Promise<void> {
  // a GPU's driver may have to start
  const planned = await io.during('planning', () => planModel(modelPath(model), loadOptions(flags, io)))
  const stages = stagesOf(planned)
  if (flags.json) await io.writeJson({ devices: planned.plan.devices, stages })
  else await io.write(`${headText(planned)}\n${devicesText(planned)}\n${table(blocksOf(stages))}`)
  try {
    checkMemory(planned.plan, planned.machine)
  } catch (error) {
    const { code, message } = TandemError.from(error)
    io.talk(`note: this plan ${code === 'ERR_DEVICE_ABSENT' ? 'cannot run' : 'does not fit'} here now: ${message}`)
  }
}

function headText({ model, plan, programs, machine }: PlannedModel): string {
  const { contextTokens, ubatch, activations, threads } = plan.limits
  const { wasm, cuda } = plan
  const calls = [
    ...(programs.cuda ? [`${programs.cuda.calls.length} calls on the GPU`] : []),
    ...(programs.wasm ? [`${programs.wasm.calls.length} calls${cuda ? ' on the pool' : ''}`] : []),
  ]
  const gpu = machine.devices.find(({ index }) => index === cuda?.device)
  return table([
    ['model', `${quoted(model.name)} (${model.architecture})`],
    ['pipeline', plan.pipeline.name],
    ['context', `${countText(contextTokens)} tokens`],
    ['ubatch', `${countText(ubatch)} tokens`],
    ['activations', activations],
    ...(wasm
      ? [
          ['threads', `${threads}`],
          ['arenas', `${wasm.arenas.length}`],
        ]
      : []),
    ...(cuda
      ? [
          ['GPU', gpu ? `${gpu.name}, ${bytesText(gpu.freeBytes)} of ${bytesText(gpu.bytes)} free` : 'absent'],
          ['experts', expertsText(plan)],
        ]
      : []),
    ['program', `${calls.join(', ')} for ${model.layers.length} layers`],
  ])
}

/** Numbers as ranges: `1-40, 43`. */
function rangesText(numbers: readonly number[]): string {
  const ranges: [number, number][] = []
  for (const number of numbers) {
    const last = ranges.at(-1)
    if (last?.[1] === number - 1) last[1] = number
    else ranges.push([number, number])
  }
  return ranges.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`)).join(', ')
}

/** Which executor has which layers' routed experts. */
function expertsText({ cuda, wasm }: Plan): string {
  const onDevice = cuda?.layers.flatMap(({ routed }, index) => (routed ? [index] : [])) ?? []
  const onPool = wasm?.layers.map(({ layer }) => layer) ?? []
  const places = [
    { executor: 'wasm', layers: onPool },
    { executor: 'cuda', layers: onDevice },
  ].filter(({ layers }) => layers.length > 0)
  return places.map(({ executor, layers }) => `layers ${rangesText(layers)} on ${executor}`).join('; ') || 'none'
}

function devicesText({ plan }: PlannedModel): string {
  const size = (bytes: number): string => bytesText(bytes).padStart(10)
  return table([
    ['device', ...['in all', 'weights', 'KV cache', 'buffers'].map((cell) => cell.padStart(10))],
    ...plan.devices.map(({ id, bytes, weights, kvCache, buffers }) => [id, size(bytes), size(weights), size(kvCache), size(buffers)]),
  ])
}
