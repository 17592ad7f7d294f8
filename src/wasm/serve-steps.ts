/** A worker's life when the whole model is the pool's: step after step, it walks the whole program. */
import { CONTROL } from '../abi/control.ts'
import { STEP_HEADER, STEP_OUTCOME } from '../abi/step.ts'
import { arenaBuffer } from '../ring/arena.ts'
import type { Ring } from '../ring/ring.ts'
import type { WaitOptions } from '../ring/wait.ts'
import type { WorkerContext } from './context.ts'
import type { ServeTask } from './protocol.ts'
import { runStage } from './run-stage.ts'
import type { StageClock } from './stage-clock.ts'
import { beginStep } from './stages/begin-step.ts'

/** Walks the program for one step. All workers leave at the same call when the step is abandoned. `clock`: where a profile is wanted. */
function runStep(context: WorkerContext, buffer: SharedArrayBuffer, slot: number, slotBytes: number, clock: StageClock | undefined): void {
  const header = new Int32Array(buffer, slot, slotBytes / 4)
  clock?.begin(header[STEP_HEADER.tokens]!, header[STEP_HEADER.runs]!)
  beginStep(context, new Uint8Array(buffer, slot, slotBytes), header)
  let entry = 0
  for (const call of context.program.calls) {
    if (context.syncAndAgree(header)) {
      Atomics.store(header, STEP_HEADER.outcome, STEP_OUTCOME.cancelled)
      return
    }
    clock?.book(entry++)
    runStage(context, call)
  }
  clock?.book(entry)
}

/** Serves steps until the engine stops the pool. Throws `ERR_POISONED`, `ERR_TIMEOUT`, `ERR_KERNEL`. */
export function serveSteps(task: ServeTask, context: WorkerContext, ring: Ring, clock: StageClock | undefined): void {
  const buffer = arenaBuffer(task.control)
  const words = new Int32Array(buffer)
  // No longer than at a barrier: spinning on for the time that the main thread needs to sample and publish gained nothing (measured).
  const idle: WaitOptions = { spins: task.spins, deadlineMs: Infinity, what: 'the next step' }
  for (let sequence = 1; ; sequence = (sequence + 1) | 0) {
    ring.claim(sequence, idle)
    // To stop, the engine publishes one more slot: its contents do not matter.
    if (Atomics.load(words, CONTROL.stop) !== 0) return
    context.step = sequence
    runStep(context, buffer, task.slots + ring.slotOf(sequence) * task.slotBytes, task.slotBytes, clock)
    ring.release(sequence)
  }
}
