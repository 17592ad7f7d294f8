/** From a path to an engine: open, describe, plan, compile, load. */
import { msSince } from '../diagnostics/debug.ts'
import { locateCudaLibrary } from '../cuda/locate.ts'
import { probeCuda } from '../cuda/probe.ts'
import { invariant, TandemError } from '../errors.ts'
import { openModelFile } from '../gguf/open.ts'
import { describeModel } from '../model/describe.ts'
import type { Model } from '../model/types.ts'
import { compile } from '../pipeline/compile.ts'
import type { Programs } from '../pipeline/program.ts'
import { resolvePipeline } from '../pipeline/resolve.ts'
import { MODULE_BYTES } from '../placement/arena-layout.ts'
import { deviceLoads } from '../placement/device-loads.ts'
import { planLoads } from '../placement/loads.ts'
import { checkMemory } from '../placement/memory.ts'
import type { PlacementOptions } from '../placement/options.ts'
import { makePlan } from '../placement/plan.ts'
import type { PipelineDefinition } from '../placement/stages.ts'
import type { Machine, Plan } from '../placement/types.ts'
import { openSidecar, type Sidecar } from '../sidecar/open.ts'
import { panelsOf, type SidecarPanels } from '../sidecar/panels.ts'
import { startWasmExecutor, type WasmExecutorOptions } from '../wasm/executor.ts'
import { type DeviceExecutorOptions, startDeviceExecutor } from './device-executor.ts'
import { Engine, type EngineExecutor, type EngineParts } from './engine.ts'
import { loadLog as debug, type LoadMessage, planLines, watchLoad } from './load-watch.ts'
import { thisMachine } from './machine.ts'

/** Progress of something a person waits for. */
export interface Progress {
  readonly phase: 'verify' | 'load' | 'prefill' | 'write'
  readonly done: number
  readonly total: number
  readonly unit: 'bytes' | 'tokens'
}

/** Options of `planModel` and `loadModel`; the limits' defaults and units are those of `Limits`. */
export interface LoadOptions extends PlacementOptions {
  /** `cpu`, `hybrid`, `gpu`, the path of a module that exports a pipeline, or a pipeline. Default `cpu`. */
  readonly pipeline?: PipelineDefinition | string | undefined
  /**
   * A repacked copy of the model (`tandem repack`), whose weights are mapped instead of loaded: its path, or `auto` for the one beside the model.
   * Default: none is looked for.
   */
  readonly sidecar?: string | undefined
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((progress: Progress) => void) | undefined
  /** Longest that workers wait for each other, or that loading may stand still, ms. Default 120,000. */
  readonly deadlineMs?: number | undefined
  /** Record where the time goes, for `Engine.profile`. Default false. */
  readonly profile?: boolean | undefined
  /** Record what every worker and GPU stream does when, for `Engine.trace`: about a million events of each, then no more. Default false. */
  readonly trace?: boolean | undefined
}

/** A model that has been planned and not loaded. */
export interface PlannedModel {
  readonly model: Model
  readonly plan: Plan
  readonly programs: Programs
  readonly machine: Machine
}

const DEFAULT_PIPELINE = 'cpu'
const DEFAULT_DEADLINE_MS = 120_000

/** Events of a traced row: 32 bytes each, which cost nothing until they are written. */
const TRACE_EVENTS = 1 << 20

const traceEvents = ({ trace = false }: LoadOptions): number => (trace ? TRACE_EVENTS : 0)

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new TandemError('ERR_ABORTED', 'loading was aborted', { cause: signal.reason })
}

/** Everything up to the point where memory is taken. Throws the codes of model files, models and plans, see docs/errors.md. */
export async function planModel(path: string, options: LoadOptions = {}): Promise<PlannedModel> {
  const { signal } = options
  throwIfAborted(signal)
  const begun = performance.now()
  const file = await openModelFile(path, signal ? { signal } : {})
  const model = describeModel(file)
  debug?.(`opened ${file.paths.join(', ')}: ${file.bytes} bytes, ${file.tensors.size} tensors, ${model.architecture}; ${msSince(begun)}`)
  const pipeline = await resolvePipeline(options.pipeline ?? DEFAULT_PIPELINE)
  const wantsGpu = Object.values(pipeline.placement).includes('cuda')
  const machine = thisMachine(wantsGpu ? await probeCuda() : undefined)
  const plan = makePlan(model, machine, pipeline, options)
  throwIfAborted(signal)
  const planned = { model, plan, programs: compile(model, plan), machine }
  if (debug) planLines(planned).forEach(debug)
  return planned
}

/** What every executor is started with. Throws `ERR_ARGUMENT`. */
function commonOptions({ model, machine }: PlannedModel, options: LoadOptions) {
  const { signal, onProgress, deadlineMs = DEFAULT_DEADLINE_MS } = options
  if (!(deadlineMs > 0)) throw new TandemError('ERR_ARGUMENT', `deadlineMs must be a number above 0, not ${deadlineMs}`)
  return {
    paths: model.file.paths,
    cores: machine.cores,
    deadlineMs,
    signal,
    onProgress: (done: number, total: number) => onProgress?.({ phase: 'load', done, total, unit: 'bytes' }),
  }
}

/** What the pool is started with for a planned model that gives it something to do. Throws `ERR_ARGUMENT`. */
export function executorOptions(planned: PlannedModel, options: LoadOptions = {}, packed?: SidecarPanels): WasmExecutorOptions {
  const { plan, programs } = planned
  const { wasm, limits, pipeline } = plan
  invariant(wasm && programs.wasm, 'the plan has nothing for the pool')
  return {
    ...commonOptions(planned, options),
    program: programs.wasm,
    arenaBytes: wasm.arenas,
    moduleBytes: MODULE_BYTES,
    loads: planLoads(wasm, packed?.matrices),
    panels: packed?.panels,
    threads: limits.threads,
    ringDepth: pipeline.ringDepth,
    profile: options.profile,
    traceEvents: traceEvents(options),
  }
}

/** What a GPU, and the pool beside it, are started with for a planned model. Throws `ERR_ARGUMENT`, `ERR_DEVICE_ABSENT`. */
export function deviceOptions(planned: PlannedModel, options: LoadOptions = {}, packed?: SidecarPanels): DeviceExecutorOptions {
  const { plan, programs } = planned
  invariant(plan.cuda && programs.cuda, 'the plan has nothing for a GPU')
  const library = locateCudaLibrary()
  if ('problem' in library) throw new TandemError('ERR_DEVICE_ABSENT', library.problem)
  debug?.(`CUDA library: ${library.path}`)
  return {
    cuda: {
      ...commonOptions(planned, options),
      library: library.path,
      plan: plan.cuda,
      program: programs.cuda,
      loads: deviceLoads(plan.cuda),
      traceEvents: traceEvents(options),
    },
    pool: programs.wasm && executorOptions(planned, options, packed),
    ringDepth: plan.pipeline.ringDepth,
  }
}

/** Opens the sidecar that was asked for. Throws `ERR_ARGUMENT`, and what `openSidecar` throws. */
async function wantedSidecar({ model, plan }: PlannedModel, { sidecar, signal, onProgress }: LoadOptions): Promise<Sidecar | undefined> {
  if (sidecar === undefined) return undefined
  if (!plan.wasm) throw new TandemError('ERR_ARGUMENT', `sidecar: pipeline '${plan.pipeline.name}' has no weights in host memory to map`)
  let done = 0
  const onBytes = (bytes: number): void => onProgress?.({ phase: 'verify', done: (done += bytes), total: model.file.bytes, unit: 'bytes' })
  return openSidecar(model, sidecar, { signal, onBytes })
}

/** Starts the executors of a plan. Throws `ERR_ARGUMENT`, `ERR_MEMORY`, `ERR_WEIGHT_NOT_FINITE`, `ERR_ABORTED`, `ERR_DEVICE`. */
function startExecutor(planned: PlannedModel, options: LoadOptions, packed?: SidecarPanels): Promise<EngineExecutor> {
  if (planned.plan.cuda) return startDeviceExecutor(deviceOptions(planned, options, packed))
  return startWasmExecutor(executorOptions(planned, options, packed))
}

/**
 * Loads a model: a GGUF file, the first shard of a split one, or a directory with one model in it. The engine owns its worker threads and
 * memory until `close()`. Throws what `planModel` throws, and `ERR_MEMORY`, `ERR_WEIGHT_NOT_FINITE`, `ERR_ABORTED`, `ERR_DEVICE`; with a sidecar also
 * `ERR_SIDECAR_STALE`, `ERR_SIDECAR_INVALID`.
 */
export function loadModel(path: string, options: LoadOptions = {}): Promise<Engine> {
  return loadEngine(path, options, (parts) => new Engine(parts))
}

/** As `loadModel`, with an engine of the caller's making. */
export function loadEngine<Result extends Engine>(
  path: string,
  options: LoadOptions,
  make: (parts: EngineParts) => Result,
): Promise<Result> {
  return watchLoad(path, options.pipeline ?? DEFAULT_PIPELINE, async (message) => make(await loadParts(path, options, message)))
}

/** What an engine is made of, loaded. */
async function loadParts(path: string, options: LoadOptions, message?: LoadMessage): Promise<EngineParts> {
  const begun = performance.now()
  const planned = await planModel(path, options)
  const { model, plan, programs, machine } = planned
  if (message) Object.assign(message, { model: model.name, bytes: model.file.bytes })
  checkMemory(plan, machine)
  const sidecar = await wantedSidecar(planned, options)
  try {
    const packed = sidecar && plan.wasm && (await panelsOf(sidecar, plan.wasm))
    if (packed) debug?.(`sidecar ${packed.panels.path}: ${packed.panels.maps.length} ranges to map, ${packed.panels.copies.length} to read`)
    const executor = await startExecutor(planned, options, packed)
    debug?.(`loaded '${model.name}' in ${msSince(begun)}`)
    return { model, plan, programs, executor, traceEvents: traceEvents(options) }
  } finally {
    // what is mapped stays mapped
    await sidecar?.close()
  }
}
