/** Tells of loads, where a program listens or a person debugs: what was planned and why, and how long each part took. */
import { type OperationChannels, operationChannels } from '../diagnostics/channels.ts'
import { debugLog } from '../diagnostics/debug.ts'
import type { Model } from '../model/types.ts'
import type { Programs } from '../pipeline/program.ts'
import { gib, partsText } from '../placement/memory.ts'
import type { PipelineDefinition } from '../placement/stages.ts'
import type { Machine, Plan } from '../placement/types.ts'

/** A load: a message of the channels `tracing:tandem:load:*`, filled in as it goes on. */
export interface LoadMessage {
  readonly path: string
  /** What the caller asked for: a name, or the path of a module. */
  readonly pipeline: string
  /** The model's name, and the size of its files; once they have been read. */
  model?: string
  bytes?: number
  /** The engine, once it is there. */
  result?: unknown
  /** Why there is none. */
  error?: unknown
}

const channels: OperationChannels<LoadMessage> = operationChannels('tandem:load')

/** Loads, and tells of it. `load` gets the message where there is one to be filled in. */
export function watchLoad<Result>(
  path: string,
  pipeline: PipelineDefinition | string,
  load: (message?: LoadMessage) => Promise<Result>,
): Promise<Result> {
  if (!channels.hasSubscribers) return load()
  const message: LoadMessage = { path, pipeline: typeof pipeline === 'string' ? pipeline : pipeline.name }
  return channels.tracePromise(() => load(message), message)
}

/** The log of a load. */
export const loadLog = debugLog('load')

/** What a plan comes to, for the log. */
export function planLines(planned: { model: Model; plan: Plan; machine: Machine; programs: Programs }): string[] {
  const { model, plan, machine, programs } = planned
  const { pipeline, limits, devices, wasm, cuda } = plan
  const { cores, physicalCores = cores, availableBytes, deviceProblem } = machine
  const gpus = machine.devices.map(({ index, name, freeBytes }) => `cuda:${index} ${name} with ${gib(freeBytes)} free`)
  const calls = [programs.wasm && `${programs.wasm.calls.length} calls on wasm`, programs.cuda && `${programs.cuda.calls.length} on cuda`]
  return [
    `machine: ${physicalCores} cores (${cores} logical), ${gib(availableBytes)} available, ${gpus.join(', ') || `no GPU (${deviceProblem})`}`,
    `plan of '${model.name}': pipeline ${pipeline.name}, ${calls.filter((each) => each !== undefined).join(', ')}; ${JSON.stringify(limits)}`,
    ...devices.map((device) => `plan: ${device.id} ${gib(device.bytes)}: ${partsText(device)}`),
    ...(wasm ? [`plan: ${wasm.arenas.length} arenas of ${wasm.arenas.map(gib).join(', ')}`] : []),
    ...(cuda && wasm
      ? [`plan: routed experts of layers ${wasm.layers.map(({ layer }) => layer).join(' ')} on wasm, the others on cuda`]
      : []),
  ]
}
