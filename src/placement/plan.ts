/** Makes a plan, or says why there can be none: every check that can be made before memory is taken is made here. */
import { TandemError } from '../errors.ts'
import type { Model } from '../model/types.ts'
import { type LimitOptions, resolveLimits } from './limits.ts'
import { place } from './place.ts'
import { type PipelineDefinition, STAGES } from './stages.ts'
import type { Machine, Plan } from './types.ts'

/** Node, V8's code and the workers' own heaps, bytes per worker; measured on Node 26. */
const WORKER_OVERHEAD_BYTES = 12 * 2 ** 20

const gib = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(2)} GiB`

function checkExecutors(pipeline: PipelineDefinition, machine: Machine): void {
  for (const stage of STAGES) {
    const executor = pipeline.placement[stage]
    if (machine.executors.has(executor)) continue
    throw new TandemError(
      'ERR_DEVICE_ABSENT',
      `pipeline '${pipeline.name}' puts ${stage} on '${executor}', which this build has no executor for; use --pipeline cpu`,
    )
  }
}

/** Throws `ERR_MEMORY` when the plan needs more than the machine has free. */
export function checkMemory(plan: Plan, machine: Machine): void {
  const arenas = plan.arenas.reduce((sum, bytes) => sum + bytes, 0)
  const needed = arenas + plan.limits.threads * WORKER_OVERHEAD_BYTES
  if (needed <= machine.availableBytes) return
  const [device] = plan.devices
  throw new TandemError(
    'ERR_MEMORY',
    `the model needs ${gib(needed)} (weights ${gib(device?.weights ?? 0)}, KV cache ${gib(device?.kvCache ?? 0)}), ` +
      `${gib(machine.availableBytes)} are available: lower the context or use a smaller file`,
  )
}

/** Plans a model on a machine. Pure. Throws `ERR_ARGUMENT`, `ERR_DEVICE_ABSENT`, `ERR_ARENA_LIMIT`. */
export function makePlan(model: Model, machine: Machine, pipeline: PipelineDefinition, options: LimitOptions = {}): Plan {
  checkExecutors(pipeline, machine)
  return place(model, pipeline, resolveLimits(model.hyper, machine, options))
}
