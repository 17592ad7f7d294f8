/** From a program's call to the function that queues it. */
import type { CudaStageCall } from '../pipeline/program.ts'
import type { CudaFunctions, Handle } from './library.ts'

/** What of a step's end is wanted. */
export interface Wanted {
  readonly outputs: number
  /** What the head leaves of each, `CUDA_RESULTS`, */
  readonly results: number
  /** and how many of its best logits it tells. */
  readonly top: number
}

type QueueStage = (tcu: CudaFunctions, engine: Handle, layer: number, wanted: Wanted) => void

const STAGES: Readonly<Record<CudaStageCall['stage'], QueueStage>> = {
  embed: (tcu, engine) => tcu.tcu_embed(engine),
  attention: (tcu, engine, layer) => tcu.tcu_attention(engine, layer),
  denseFfn: (tcu, engine, layer) => tcu.tcu_dense_ffn(engine, layer),
  router: (tcu, engine, layer) => tcu.tcu_router(engine, layer),
  publish: (tcu, engine, layer) => tcu.tcu_publish(engine, layer),
  sharedExperts: (tcu, engine, layer) => tcu.tcu_shared_experts(engine, layer),
  routedExperts: (tcu, engine, layer) => tcu.tcu_routed_experts(engine, layer),
  awaitRouted: (tcu, engine, layer) => tcu.tcu_await_routed(engine, layer),
  combine: (tcu, engine, layer) => tcu.tcu_combine(engine, layer),
  head: (tcu, engine, _layer, { results, top }) => tcu.tcu_head(engine, results, top),
}

/** Queues one call of the program; returns at once. */
export function queueStage(tcu: CudaFunctions, engine: Handle, { stage, layer }: CudaStageCall, wanted: Wanted): void {
  STAGES[stage](tcu, engine, layer, wanted)
}
