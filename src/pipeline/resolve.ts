/** From what a user writes (`cpu`, `./mine.ts`, a pipeline object) to a pipeline. */
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { TandemError } from '../errors.ts'
import type { PipelineDefinition } from '../placement/stages.ts'
import { definePipeline } from './define.ts'
import { userStageOptions } from './user-stage.ts'
import cpu from '../../pipelines/cpu.ts'
import gpu from '../../pipelines/gpu.ts'
import hybrid from '../../pipelines/hybrid.ts'

const BUILT_IN: ReadonlyMap<string, PipelineDefinition> = new Map([cpu, hybrid, gpu].map((pipeline) => [pipeline.name, pipeline]))

/** Names of the pipelines that come with the package. */
export const PIPELINE_NAMES: readonly string[] = [...BUILT_IN.keys()]

async function importPipeline(path: string): Promise<PipelineDefinition> {
  let module: { readonly default?: PipelineDefinition }
  try {
    module = (await import(pathToFileURL(resolve(path)).href)) as typeof module
  } catch (cause) {
    const names = PIPELINE_NAMES.join(', ')
    throw new TandemError('ERR_PIPELINE_INVALID', `'${path}' is neither a built-in pipeline (${names}) nor a module that can be imported`, {
      cause,
    })
  }
  return checked(module.default, path)
}

/** Checks what a program or a module made: it may not have come from `definePipeline`, or have been changed since. */
function checked(pipeline: PipelineDefinition | undefined, where: string): PipelineDefinition {
  if (typeof pipeline !== 'object' || pipeline === null || typeof pipeline.placement !== 'object' || pipeline.placement === null) {
    throw new TandemError('ERR_PIPELINE_INVALID', `${where} must be a pipeline made with definePipeline (a module: as its default export)`)
  }
  const { name, placement, ringDepth, overlap, tensors = [], userStages = [] } = pipeline
  return definePipeline({
    name,
    executor: 'wasm',
    stages: placement,
    ringDepth,
    overlap,
    tensors,
    userStages: userStages.map(userStageOptions),
  })
}

/** A pipeline by name, by path of a module, or as it is. Throws `ERR_PIPELINE_INVALID`. */
export async function resolvePipeline(pipeline: PipelineDefinition | string): Promise<PipelineDefinition> {
  if (typeof pipeline !== 'string') return checked(pipeline, 'the pipeline')
  return BUILT_IN.get(pipeline) ?? importPipeline(pipeline)
}
