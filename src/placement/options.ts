/** What a caller may say about where routed experts go, beyond the pipeline. */
import { TandemError } from '../errors.ts'
import type { LimitOptions } from './limits.ts'
import { EXECUTORS, type Override } from './stages.ts'

/** Options of a plan. Without any of them the pipeline alone decides. */
export interface PlacementOptions extends LimitOptions {
  /** Routed experts of the last N layers that have some go on the GPU. */
  readonly gpuExpertLayers?: number | undefined
  /** GPU memory that may be used, bytes. Without `gpuExpertLayers`, as many layers' routed experts go on the GPU as fit, from the last layer on. */
  readonly gpuBytes?: number | undefined
  /** In order: the first that matches a tensor's name decides. Only routed experts may leave the pipeline's executor, a layer's all together. */
  readonly overrides?: readonly Override[] | undefined
  /** Replaces the pipeline's `overlap`. */
  readonly overlap?: boolean | undefined
}

/** An override whose pattern has been compiled. */
export interface CompiledOverride extends Override {
  readonly expression: RegExp
}

/** No tensor's name needs more, and a short pattern cannot take forever on a short name by accident. */
const MAX_PATTERN_LENGTH = 200

function compileOverride({ pattern, executor }: Override): CompiledOverride {
  if (!EXECUTORS.includes(executor)) {
    throw new TandemError('ERR_ARGUMENT', `override '${pattern}' names the executor '${executor}'; there are ${EXECUTORS.join(' and ')}`)
  }
  if (typeof pattern !== 'string' || pattern === '' || pattern.length > MAX_PATTERN_LENGTH) {
    throw new TandemError('ERR_ARGUMENT', `an override's pattern must have 1 to ${MAX_PATTERN_LENGTH} characters`)
  }
  // a repeated group with a repetition inside, such as (a+)+, may take time that doubles with every character
  if (/\([^()]*[*+}][^()]*\)[*+{]/.test(pattern)) {
    throw new TandemError('ERR_ARGUMENT', `override '${pattern}' repeats a group that has a repetition inside: write it without`)
  }
  try {
    return { pattern, executor, expression: new RegExp(pattern) }
  } catch (cause) {
    throw new TandemError('ERR_ARGUMENT', `override '${pattern}' is not a regular expression: ${(cause as Error).message}`, { cause })
  }
}

/** Compiles overrides. Throws `ERR_ARGUMENT`. */
export const compileOverrides = (overrides: readonly Override[] = []): CompiledOverride[] => overrides.map(compileOverride)

/** The options that only a pipeline with the GPU understands, checked. Throws `ERR_ARGUMENT`. */
export function gpuOptions({ gpuExpertLayers, gpuBytes }: PlacementOptions): Pick<PlacementOptions, 'gpuExpertLayers' | 'gpuBytes'> {
  const check = (name: string, value: number | undefined, least: number): void => {
    if (value === undefined || (Number.isSafeInteger(value) && value >= least)) return
    throw new TandemError('ERR_ARGUMENT', `${name} must be a whole number from ${least}, not ${value}`)
  }
  check('gpuExpertLayers', gpuExpertLayers, 0)
  check('gpuBytes', gpuBytes, 1)
  return { gpuExpertLayers, gpuBytes }
}
