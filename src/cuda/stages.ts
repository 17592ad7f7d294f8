/** From a program's call to the function that queues it. */
import type { CudaCall } from '../pipeline/program.ts'
import type { CudaFunctions, Handle } from './library.ts'

type QueueStage = (tcu: CudaFunctions, engine: Handle, layer: number) => void

const STAGES: Readonly<Record<CudaCall['stage'], QueueStage>> = {
  embed: (tcu, engine) => tcu.tcu_embed(engine),
  attention: (tcu, engine, layer) => tcu.tcu_attention(engine, layer),
  denseFfn: (tcu, engine, layer) => tcu.tcu_dense_ffn(engine, layer),
  router: (tcu, engine, layer) => tcu.tcu_router(engine, layer),
  publish: (tcu, engine, layer) => tcu.tcu_publish(engine, layer),
  sharedExperts: (tcu, engine, layer) => tcu.tcu_shared_experts(engine, layer),
  routedExperts: (tcu, engine, layer) => tcu.tcu_routed_experts(engine, layer),
  awaitRouted: (tcu, engine, layer) => tcu.tcu_await_routed(engine, layer),
  combine: (tcu, engine, layer) => tcu.tcu_combine(engine, layer),
  head: (tcu, engine) => tcu.tcu_head(engine, 1),
}

/** Queues one call of the program; returns at once. */
export function queueStage(tcu: CudaFunctions, engine: Handle, { stage, layer }: CudaCall): void {
  STAGES[stage](tcu, engine, layer)
}
