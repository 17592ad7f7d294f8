/** Which executor has which layer's routed experts: the pipeline, overrides and the caller's wishes, checked against each other. Pure. */
import { TandemError } from '../errors.ts'
import type { TensorInfo } from '../gguf/types.ts'
import type { FeedForward, Layer, Matrix, Model } from '../model/types.ts'
import { type CompiledOverride, compileOverrides, gpuOptions, type PlacementOptions } from './options.ts'
import type { ExpertLayer } from './place-experts.ts'
import { type ExecutorName, type PipelineDefinition, STAGES } from './stages.ts'

/** Where everything goes. */
export interface ExpertPlaces {
  /** The executor of everything but the routed experts. */
  readonly executor: ExecutorName
  /** Layers whose routed experts go on the GPU whatever the budget says, and on the pool, in the model's order. */
  readonly onDevice: readonly ExpertLayer[]
  readonly onPool: readonly ExpertLayer[]
  /** Layers of `onPool` that a budget may take to the GPU. */
  readonly movable: readonly ExpertLayer[]
}

function invalid(message: string): TandemError {
  return new TandemError('ERR_PIPELINE_INVALID', message)
}

/** The executor of all stages but the routed experts. Throws `ERR_PIPELINE_INVALID` for a placement that there is no way to run. */
function executorOf({ name, placement }: PipelineDefinition): ExecutorName {
  const executor = placement.embed
  const allowed = "every stage on 'wasm', or every stage on 'cuda' with routedExperts on either"
  for (const stage of STAGES) {
    if (placement[stage] === executor || (executor === 'cuda' && stage === 'routedExperts')) continue
    throw invalid(`pipeline '${name}' puts ${stage} on '${placement[stage]}' and embed on '${executor}'; what can run is ${allowed}`)
  }
  return executor
}

const tensorsOf = ({ gate, up, down }: FeedForward): TensorInfo[] => [gate.tensor, up.tensor, down.tensor]

/** Every tensor of a layer but the routed experts'. */
function denseTensors({ attention, ffnNorm, dense, router, shared }: Layer): TensorInfo[] {
  const owners = [...Object.values(attention), ffnNorm, ...Object.values(router ?? {})]
  return [...owners.map(({ tensor }) => tensor), ...(dense ? tensorsOf(dense) : []), ...(shared ? tensorsOf(shared) : [])]
}

const hasExperts = (layer: Layer): layer is ExpertLayer => layer.routed !== undefined

/** Applies overrides to tensors by name, and knows which of them matched anything. */
class Overrides {
  readonly #overrides: readonly CompiledOverride[]
  readonly #matched = new Set<CompiledOverride>()

  constructor(overrides: readonly CompiledOverride[]) {
    this.#overrides = overrides
  }

  /** The executor of the first override that matches. */
  of({ name }: TensorInfo): ExecutorName | undefined {
    const matching = this.#overrides.filter(({ expression }) => expression.test(name))
    for (const override of matching) this.#matched.add(override)
    return matching[0]?.executor
  }

  /** Throws `ERR_ARGUMENT` for one that matched nothing. */
  checkAllMatched(): void {
    const idle = this.#overrides.find((override) => !this.#matched.has(override))
    if (idle) throw new TandemError('ERR_ARGUMENT', `override '${idle.pattern}' matches the name of no tensor that the model uses`)
  }
}

/** The executor that overrides want for a layer's experts, if any does. `fallback`: of the tensors that none of them matches. */
function overriddenExperts(overrides: Overrides, { index, routed }: ExpertLayer, fallback: ExecutorName): ExecutorName | undefined {
  const tensors = tensorsOf(routed)
  const wanted = tensors.map((tensor) => overrides.of(tensor))
  if (wanted.every((executor) => executor === undefined)) return undefined
  const [first, ...others] = wanted.map((executor) => executor ?? fallback)
  const other = others.findIndex((executor) => executor !== first) + 1
  if (other > 0) {
    const [a, b] = [tensors[0]!, tensors[other]!].map(({ name }) => name)
    throw invalid(`${b} is put on '${others[other - 1]}' and ${a} on '${first}': gate, up and down of layer ${index} must be together`)
  }
  return first
}

/** Decides all but what depends on sizes. Throws `ERR_PIPELINE_INVALID`, `ERR_ARGUMENT`. */
export function expertPlaces(model: Model, pipeline: PipelineDefinition, options: PlacementOptions): ExpertPlaces {
  const executor = executorOf(pipeline)
  const { gpuExpertLayers, gpuBytes } = gpuOptions(options)
  const overrides = new Overrides(compileOverrides(options.overrides))
  const fallback = pipeline.placement.routedExperts
  if (executor === 'wasm' && (gpuExpertLayers !== undefined || gpuBytes !== undefined)) {
    const option = gpuBytes === undefined ? 'gpuExpertLayers (--gpu-layers)' : 'gpuBytes (--gpu-memory)'
    throw new TandemError('ERR_ARGUMENT', `${option} is for pipelines with a GPU, and pipeline '${pipeline.name}' uses none`)
  }
  if (gpuExpertLayers !== undefined && fallback === 'cuda') {
    throw new TandemError(
      'ERR_ARGUMENT',
      `gpuExpertLayers (--gpu-layers) is for pipelines with routedExperts on 'wasm'; '${pipeline.name}' has them on 'cuda'`,
    )
  }
  const ends: readonly { readonly tensor: Matrix['tensor'] }[] = [model.embedding, model.outputNorm, model.head]
  for (const tensor of [...ends.map((end) => end.tensor), ...model.layers.flatMap(denseTensors)]) {
    const wanted = overrides.of(tensor)
    if (wanted === undefined || wanted === executor) continue
    throw invalid(`${tensor.name} is put on '${wanted}' and pipeline '${pipeline.name}' on '${executor}': only routed experts may differ`)
  }
  const layers = model.layers.filter(hasExperts)
  const overridden = new Map(layers.map((layer) => [layer, overriddenExperts(overrides, layer, fallback)]))
  overrides.checkAllMatched()
  const last = new Set(gpuExpertLayers ? layers.slice(-gpuExpertLayers) : [])
  const placeOf = (layer: ExpertLayer): ExecutorName => overridden.get(layer) ?? (last.has(layer) ? 'cuda' : fallback)
  const onPool = layers.filter((layer) => placeOf(layer) === 'wasm')
  const onDevice = layers.filter((layer) => placeOf(layer) === 'cuda')
  const [stray] = executor === 'wasm' ? onDevice : []
  if (stray) {
    throw invalid(
      `${stray.routed.gate.tensor.name} is put on 'cuda' and pipeline '${pipeline.name}' on 'wasm'; ` +
        'routed experts can be on the GPU where everything else is',
    )
  }
  const movable = gpuBytes === undefined || gpuExpertLayers !== undefined ? [] : onPool.filter((layer) => !overridden.get(layer))
  return { executor, onDevice, onPool, movable }
}
