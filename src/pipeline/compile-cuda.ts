/** Compiles a GPU's part of a plan into its program. Pure. */
import type { DeviceLayer } from '../placement/types.ts'
import type { CudaStageCall } from './program.ts'

/** A layer's stages. With `overlap` the shared experts are queued before the pool is waited for, so that both work at the same time. */
function layerStages({ dense, shared, handoff }: DeviceLayer, overlap: boolean): CudaStageCall['stage'][] {
  if (dense) return ['attention', 'denseFfn']
  const sharedExperts: CudaStageCall['stage'][] = shared ? ['sharedExperts'] : []
  if (!handoff) return ['attention', 'router', ...sharedExperts, 'routedExperts', 'combine']
  const meanwhile: CudaStageCall['stage'][] = overlap ? [...sharedExperts, 'awaitRouted'] : ['awaitRouted', ...sharedExperts]
  return ['attention', 'router', 'publish', ...meanwhile, 'combine']
}

/** A whole step. */
export function cudaCalls(layers: readonly DeviceLayer[], overlap: boolean): CudaStageCall[] {
  const calls = layers.flatMap((each, layer) => layerStages(each, overlap).map((stage) => ({ stage, layer })))
  return [{ stage: 'embed', layer: -1 }, ...calls, { stage: 'head', layer: -1 }]
}
