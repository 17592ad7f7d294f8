/** Makes a plan, or says why there can be none: every check that can be made before memory is taken is made here. */
import type { Model } from '../model/types.ts'
import { fillBudget } from './budget.ts'
import { type ExpertPlaces, expertPlaces } from './expert-places.ts'
import { resolveLimits } from './limits.ts'
import { deviceAbsent } from './memory.ts'
import type { PlacementOptions } from './options.ts'
import { deviceBytes, placeDevice } from './place-device.ts'
import { type ExpertLayer, placeExperts } from './place-experts.ts'
import { placeModel } from './place-model.ts'
import type { PipelineDefinition } from './stages.ts'
import { stepLayout } from './step-layout.ts'
import type { CudaPlan, Handoff, Limits, Machine, Plan, StepLayout } from './types.ts'

type PlacedParts = Pick<Plan, 'wasm' | 'cuda' | 'devices'>

/** Places a model on a GPU, and what does not go there on the pool. */
function placeOnGpu(model: Model, limits: Limits, step: StepLayout, places: ExpertPlaces, device: number, gpuBytes?: number): PlacedParts {
  const place = (handoffs: ReadonlyMap<number, Handoff>): CudaPlan => placeDevice(model, limits, step, device, handoffs)
  const bytesWith = (onPool: readonly ExpertLayer[]) => deviceBytes(place(placeholders(onPool)))
  const onPool = gpuBytes === undefined ? places.onPool : fillBudget(places, gpuBytes, bytesWith)
  if (onPool.length === 0) {
    const cuda = place(new Map())
    return { cuda, devices: [deviceBytes(cuda)] }
  }
  const { wasm, bytes, handoffs } = placeExperts(model, limits, onPool)
  const cuda = place(handoffs)
  return { wasm, cuda, devices: [bytes, deviceBytes(cuda)] }
}

/** Hand-offs for counting bytes, which do not depend on where in the arenas the experts are. */
function placeholders(layers: readonly ExpertLayer[]): ReadonlyMap<number, Handoff> {
  return new Map(layers.map(({ index }) => [index, { entry: 0, arena: 0, activations: [] }]))
}

/**
 * Plans a model on a machine. Pure. With `gpuBytes` the plan may be for a GPU that this machine does not have; `checkMemory` tells. Throws
 * `ERR_ARGUMENT`, `ERR_PIPELINE_INVALID`, `ERR_DEVICE_ABSENT`, `ERR_FORMAT_UNSUPPORTED`, `ERR_MEMORY`, `ERR_ARENA_LIMIT`.
 */
export function makePlan(model: Model, machine: Machine, pipeline: PipelineDefinition, options: PlacementOptions = {}): Plan {
  const { overrides = [] } = options
  const places = expertPlaces(model, pipeline, { ...options, overrides: [...overrides, ...(pipeline.tensors ?? [])] })
  const limits = resolveLimits(model.hyper, machine, options, places.executor === 'cuda' ? 1 : 0)
  const step = stepLayout(limits)
  const common = { pipeline: { ...pipeline, overlap: options.overlap ?? pipeline.overlap }, limits, step }
  if (places.executor === 'wasm') {
    const { wasm, bytes } = placeModel(model, limits, step)
    return { ...common, wasm, devices: [bytes] }
  }
  const [gpu] = machine.devices
  if (!gpu && options.gpuBytes === undefined) throw deviceAbsent(`pipeline '${pipeline.name}' puts stages`, machine)
  return { ...common, ...placeOnGpu(model, limits, step, places, gpu?.index ?? 0, options.gpuBytes) }
}
