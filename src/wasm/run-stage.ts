/** From a program's call to the function that runs it on the pool. */
import type { StageCall } from '../pipeline/program.ts'
import type { WorkerContext } from './context.ts'
import { attention } from './stages/attention.ts'
import { combine } from './stages/combine.ts'
import { embed } from './stages/embed.ts'
import { denseFfn, sharedExperts } from './stages/feed-forward.ts'
import { head } from './stages/head.ts'
import { routedExperts } from './stages/routed-experts.ts'
import { router } from './stages/router.ts'
import { transfer } from './stages/transfer.ts'
import { user } from './stages/user.ts'

type StageFunctions = { readonly [Call in StageCall as Call['stage']]: (context: WorkerContext, call: Call) => void }

const STAGE_FUNCTIONS: StageFunctions = {
  embed,
  attention,
  denseFfn,
  router,
  sharedExperts,
  routedExperts,
  combine,
  head,
  transfer,
  user,
}

/** Runs one call of the program on this worker's share. Stages meet at their own barriers inside, not at the end. */
export function runStage(context: WorkerContext, call: StageCall): void {
  const run = STAGE_FUNCTIONS[call.stage] as (context: WorkerContext, call: StageCall) => void
  run(context, call)
}
