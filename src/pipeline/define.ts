/** Pipelines: small typed descriptions of where each stage runs. */
import { TandemError } from '../errors.ts'
import { type ExecutorName, EXECUTORS, type Override, type PipelineDefinition, type StageName, STAGES } from '../placement/stages.ts'
import { defineUserStages, type UserStageOptions } from './user-stage.ts'

/** What `definePipeline` takes. */
export interface PipelineOptions {
  readonly name: string
  /** Executor of every stage that `stages` does not name. */
  readonly executor: ExecutorName
  /** Stages that run elsewhere. */
  readonly stages?: { readonly [Stage in StageName]?: ExecutorName }
  /** Tensors that run elsewhere than their stage: routed experts, a layer's all together. `LoadOptions.overrides` come first. Default none. */
  readonly tensors?: readonly Override[]
  /** Steps in flight between the engine and the executor. 1, 2, 4, 8 or 16, default 2. */
  readonly ringDepth?: number
  /** Whether the GPU computes the shared experts while the pool computes the routed ones; off only to measure what it gains. Default true. */
  readonly overlap?: boolean
  /** Functions of yours that run between the stages. Default none. */
  readonly userStages?: readonly UserStageOptions[]
}

/** Powers of two: see `ring/ring.ts`. */
const RING_DEPTHS: readonly number[] = [1, 2, 4, 8, 16]

function invalid(message: string): TandemError {
  return new TandemError('ERR_PIPELINE_INVALID', message)
}

function checkExecutor(pipeline: string, where: string, executor: unknown): ExecutorName {
  const known = EXECUTORS.find((name) => name === executor)
  if (!known)
    throw invalid(`pipeline '${pipeline}': ${where} names the executor '${String(executor)}'; there are ${EXECUTORS.join(' and ')}`)
  return known
}

/** Makes a pipeline. Throws `ERR_PIPELINE_INVALID`. */
export function definePipeline(options: PipelineOptions): PipelineDefinition {
  const { name, executor, stages = {}, tensors = [], ringDepth = 2, overlap = true, userStages = [] } = options
  if (typeof name !== 'string' || name === '') throw invalid('a pipeline needs a name')
  if (!RING_DEPTHS.includes(ringDepth)) {
    throw invalid(`pipeline '${name}': ringDepth must be one of ${RING_DEPTHS.join(', ')}, not ${ringDepth}`)
  }
  if (typeof overlap !== 'boolean') throw invalid(`pipeline '${name}': overlap must be true or false, not ${String(overlap)}`)
  const unknown = Object.keys(stages).find((stage) => !STAGES.includes(stage as StageName))
  if (unknown) throw invalid(`pipeline '${name}': there is no stage '${unknown}'; the stages are ${STAGES.join(', ')}`)
  const rest = checkExecutor(name, 'executor', executor)
  const placement = Object.fromEntries(STAGES.map((stage) => [stage, checkExecutor(name, stage, stages[stage] ?? rest)])) as Record<
    StageName,
    ExecutorName
  >
  if (!Array.isArray(tensors)) throw invalid(`pipeline '${name}': tensors must be a list of { pattern, executor }`)
  const own = defineUserStages(name, userStages)
  return {
    name,
    placement,
    ringDepth,
    overlap,
    ...(tensors.length > 0 ? { tensors: tensors.map(({ pattern, executor: where }: Override) => ({ pattern, executor: where })) } : {}),
    ...(own.length > 0 ? { userStages: own } : {}),
  }
}
