/** user: a function of the user, or a copy for one. Worker 0 alone has them; the others meet it at the next barrier. */
import type { UserCall } from '../../pipeline/program.ts'
import type { WorkerContext } from '../context.ts'

/** Runs the stage on worker 0. */
export function user(context: WorkerContext, call: UserCall): void {
  if (context.runUserCall?.(context, call) === false) context.abandonStep()
}
