/** From a path to an engine: open, describe, plan, compile, load. */
import { TandemError } from '../errors.ts'
import { openModelFile } from '../gguf/open.ts'
import { describeModel } from '../model/describe.ts'
import type { Model } from '../model/types.ts'
import { compile } from '../pipeline/compile.ts'
import type { Program } from '../pipeline/program.ts'
import { resolvePipeline } from '../pipeline/resolve.ts'
import { MODULE_BYTES } from '../placement/arena-layout.ts'
import type { LimitOptions } from '../placement/limits.ts'
import { planLoads } from '../placement/loads.ts'
import { checkMemory, makePlan } from '../placement/plan.ts'
import type { PipelineDefinition } from '../placement/stages.ts'
import type { Machine, Plan } from '../placement/types.ts'
import { startWasmExecutor, type WasmExecutorOptions } from '../wasm/executor.ts'
import { Engine } from './engine.ts'
import { thisMachine } from './machine.ts'

/** Progress of something a person waits for. */
export interface Progress {
  readonly phase: 'load' | 'prefill' | 'write'
  readonly done: number
  readonly total: number
  readonly unit: 'bytes' | 'tokens'
}

/** Options of `planModel` and `loadModel`; the limits' defaults and units are those of `Limits`. */
export interface LoadOptions extends LimitOptions {
  /** `cpu`, `hybrid`, `gpu`, the path of a module that exports a pipeline, or a pipeline. Default `cpu`. */
  readonly pipeline?: PipelineDefinition | string | undefined
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((progress: Progress) => void) | undefined
  /** Longest that workers wait for each other, or that loading may stand still, ms. Default 120,000. */
  readonly deadlineMs?: number | undefined
  /** Record where the time goes, for `Engine.profile`. Default false. */
  readonly profile?: boolean | undefined
}

/** A model that has been planned and not loaded. */
export interface PlannedModel {
  readonly model: Model
  readonly plan: Plan
  readonly program: Program
  readonly machine: Machine
}

const DEFAULT_DEADLINE_MS = 120_000

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new TandemError('ERR_ABORTED', 'loading was aborted', { cause: signal.reason })
}

/** Everything up to the point where memory is taken. Throws the codes of model files, models and plans, see docs/errors.md. */
export async function planModel(path: string, options: LoadOptions = {}): Promise<PlannedModel> {
  const { signal, pipeline = 'cpu' } = options
  throwIfAborted(signal)
  const file = await openModelFile(path, signal ? { signal } : {})
  const model = describeModel(file)
  const machine = thisMachine()
  const plan = makePlan(model, machine, await resolvePipeline(pipeline), options)
  throwIfAborted(signal)
  return { model, plan, program: compile(model, plan), machine }
}

/** What the pool is started with for a planned model. Throws `ERR_ARGUMENT`. */
export function executorOptions({ model, plan, program, machine }: PlannedModel, options: LoadOptions = {}): WasmExecutorOptions {
  const { signal, onProgress, deadlineMs = DEFAULT_DEADLINE_MS, profile } = options
  if (!(deadlineMs > 0)) throw new TandemError('ERR_ARGUMENT', `deadlineMs must be a number above 0, not ${deadlineMs}`)
  return {
    program,
    arenaBytes: plan.arenas,
    moduleBytes: MODULE_BYTES,
    loads: planLoads(plan),
    paths: model.file.paths,
    threads: plan.limits.threads,
    cores: machine.cores,
    ringDepth: plan.pipeline.ringDepth,
    deadlineMs,
    profile,
    signal,
    onProgress: (done, total) => onProgress?.({ phase: 'load', done, total, unit: 'bytes' }),
  }
}

/**
 * Loads a model: a GGUF file, the first shard of a split one, or a directory with one model in it. The engine owns its worker threads and
 * memory until `close()`. Throws what `planModel` throws, and `ERR_MEMORY`, `ERR_WEIGHT_NOT_FINITE`, `ERR_ABORTED`.
 */
export async function loadModel(path: string, options: LoadOptions = {}): Promise<Engine> {
  const planned = await planModel(path, options)
  const { model, plan, program, machine } = planned
  const start = executorOptions(planned, options)
  checkMemory(plan, machine)
  return new Engine({ model, plan, program, executor: await startWasmExecutor(start) })
}
