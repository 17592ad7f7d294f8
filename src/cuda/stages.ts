/** From a program's call to the function that queues it. */
import type { CudaStageCall } from '../pipeline/program.ts'
import type { CudaFunctions, Handle } from './library.ts'

type QueueStage = (tcu: CudaFunctions, engine: Handle, layer: number, results: number) => void

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
  head: (tcu, engine, _layer, results) => tcu.tcu_head(engine, results, 0),
}

/** Queues one call of the program; returns at once. `results`: what the head is to leave, `CUDA_RESULTS`. */
export function queueStage(tcu: CudaFunctions, engine: Handle, { stage, layer }: CudaStageCall, results: number): void {
  STAGES[stage](tcu, engine, layer, results)
}
