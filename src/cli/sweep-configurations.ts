/** What a sweep is run for: every model with every pipeline, and what each is called. */
import { basename, extname } from 'node:path'
import { resolvePipeline } from '../pipeline/resolve.ts'
import type { EngineFlags } from './engine-options.ts'

/** A model with a pipeline. */
export interface Configuration {
  /** What tells it from the others; no two have the same. */
  readonly label: string
  readonly path: string
  readonly pipeline: string
  /** The options that this pipeline understands. */
  readonly flags: EngineFlags
}

/** `models/glm-00001-of-00004.gguf` is `glm`. */
export function modelName(path: string): string {
  return basename(path)
    .replace(/\.gguf$/i, '')
    .replace(/-\d{5}-of-\d{5}$/, '')
}

const pipelineName = (pipeline: string): string => basename(pipeline, extname(pipeline))

/** Each name, or what it stands for where another thing has the same name. */
function tellingNames(things: readonly string[], nameOf: (thing: string) => string): string[] {
  const names = things.map(nameOf)
  return things.map((thing, index) => (things.some((other, i) => other !== thing && names[i] === names[index]) ? thing : names[index]!))
}

/** The same configuration twice, to see how much two measurements of one thing differ, is `cpu` and `cpu (2)`. */
function numbered(labels: readonly string[]): string[] {
  return labels.map((label, index) => {
    const nth = labels.slice(0, index + 1).filter((each) => each === label).length
    return nth > 1 ? `${label} (${nth})` : label
  })
}

/** The options that a pipeline can do something with: of several, not all can with those of the GPU, and a pipeline refuses what it cannot. */
export async function flagsFor(pipeline: string, flags: EngineFlags): Promise<EngineFlags> {
  const { placement } = await resolvePipeline(pipeline)
  const { gpuLayers, gpuMemory, override, overlap, ...others } = flags
  if (!Object.values(placement).includes('cuda')) return others
  return {
    ...others,
    ...(gpuMemory === undefined ? {} : { gpuMemory }),
    ...(override === undefined ? {} : { override }),
    ...(overlap === undefined ? {} : { overlap }),
    ...(gpuLayers === undefined || placement.routedExperts === 'cuda' ? {} : { gpuLayers }),
  }
}

/** Every model with every pipeline, at least one of each. Throws `ERR_PIPELINE_INVALID`. */
export async function configurationsOf(
  paths: readonly string[],
  pipelines: readonly string[],
  flags: EngineFlags,
): Promise<readonly Configuration[]> {
  const models = tellingNames(paths, modelName)
  const names = tellingNames(pipelines, pipelineName)
  const pairs = paths.flatMap((path, model) => pipelines.map((pipeline, index) => ({ path, model, pipeline, name: names[index]! })))
  const labels = numbered(
    pairs.map(({ model, name }) => {
      if (pipelines.length === 1) return models[model]!
      return paths.length === 1 ? name : `${models[model]!}, ${name}`
    }),
  )
  return Promise.all(
    pairs.map(async ({ path, pipeline }, index) => ({
      label: labels[index]!,
      path,
      pipeline,
      flags: { ...(pipelines.length > 1 ? await flagsFor(pipeline, flags) : flags), pipeline },
    })),
  )
}
