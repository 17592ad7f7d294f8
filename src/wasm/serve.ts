/** A worker of the pool: one long task that loads its part of the weights and then walks the program for every step until it is told to stop. */
import { CONTROL } from '../abi/control.ts'
import { STEP_HEADER, STEP_OUTCOME } from '../abi/step.ts'
import { TandemError } from '../errors.ts'
import { arenaBuffer } from '../ring/arena.ts'
import { FanIn } from '../ring/fan-in.ts'
import { isPoisoned, poison } from '../ring/poison.ts'
import { Ring } from '../ring/ring.ts'
import type { WaitOptions } from '../ring/wait.ts'
import { StageTimes } from '../trace/stage-times.ts'
import { WorkerContext } from './context.ts'
import { instantiateKernels } from './kernels.ts'
import { loadWeights } from './load.ts'
import type { ServeResult, ServeTask } from './protocol.ts'
import { runStage } from './run-stage.ts'
import { StageClock, TimedFanIn } from './stage-clock.ts'
import { beginStep } from './stages/begin-step.ts'

function makeContext(task: ServeTask, words: Int32Array<SharedArrayBuffer>, barrier: FanIn, wait: WaitOptions): WorkerContext {
  const { arena } = task.program
  const stackTop = arena.workers + task.worker * arena.workerBytes + arena.stackBytes
  const arenas = task.arenas.map((memory) => {
    const buffer = arenaBuffer(memory)
    return {
      kernels: instantiateKernels(task.module, memory, stackTop, task.moduleBytes),
      bytes: new Uint8Array(buffer),
      words: new Int32Array(buffer),
      floats: new Float32Array(buffer),
    }
  })
  return new WorkerContext({ program: task.program, arenas, worker: task.worker, workers: task.workers, control: words, barrier, wait })
}

/** Walks the program for one step. All workers leave at the same call when the step is abandoned. `clock`: where a profile is wanted. */
function runStep(context: WorkerContext, buffer: SharedArrayBuffer, slot: number, slotBytes: number, clock: StageClock | undefined): void {
  const header = new Int32Array(buffer, slot, slotBytes / 4)
  clock?.begin(header)
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

function serveSteps(
  task: ServeTask,
  context: WorkerContext,
  words: Int32Array<SharedArrayBuffer>,
  ring: Ring,
  clock: StageClock | undefined,
): void {
  const buffer = arenaBuffer(task.control)
  // No longer than at a barrier: spinning on for the time that the main thread needs to sample and publish gained nothing (measured).
  const idle: WaitOptions = { spins: task.spins, deadlineMs: Infinity, what: 'the next step' }
  for (let sequence = 1; ; sequence = (sequence + 1) | 0) {
    ring.claim(sequence, idle)
    // To stop, the engine publishes one more slot: its contents do not matter.
    if (Atomics.load(words, CONTROL.stop) !== 0) return
    runStep(context, buffer, task.slots + ring.slotOf(sequence) * task.slotBytes, task.slotBytes, clock)
    ring.release(sequence)
  }
}

/** The workers' barrier, and where a profile is wanted the clock that knows how long it was waited at. */
function makeBarrier(task: ServeTask, words: Int32Array<SharedArrayBuffer>): { barrier: FanIn; clock?: StageClock } {
  const { worker, workers, program, stageTimes } = task
  if (!stageTimes) return { barrier: new FanIn(words, CONTROL.barrier, workers) }
  const barrier = new TimedFanIn(words, CONTROL.barrier, workers)
  return { barrier, clock: new StageClock(new StageTimes(workers, program.calls.length, stageTimes), worker, barrier) }
}

/** The pool's task. Resolves when stopped, or with the error that ended it after poisoning everyone else. */
export default async function serve(task: ServeTask): Promise<ServeResult> {
  const words = new Int32Array(arenaBuffer(task.control))
  const { barrier, clock } = makeBarrier(task, words)
  const ring = new Ring(words, CONTROL.ring, task.ringDepth, task.workers)
  try {
    const wait: WaitOptions = { spins: task.spins, deadlineMs: task.deadlineMs, what: 'the other workers' }
    const context = makeContext(task, words, barrier, wait)
    const shouldStop = (): boolean => Atomics.load(words, CONTROL.stop) !== 0 || isPoisoned(words)
    loadWeights(context, words, task.paths, task.loads, shouldStop)
    if (shouldStop()) return {}
    Atomics.add(words, CONTROL.ready, 1)
    Atomics.notify(words, CONTROL.ready)
    serveSteps(task, context, words, ring, clock)
    return {}
  } catch (cause) {
    const error = TandemError.from(cause)
    poison(words, [barrier.epochWord, ...ring.waitWords, CONTROL.ready])
    return { error: error.toRecord() }
  }
}
