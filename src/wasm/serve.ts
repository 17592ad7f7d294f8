/**
 * A worker of the pool: one long task that loads its part of the weights and then walks the program, for every step or its
 * entries for every hand-off, until it is told to stop.
 */
import { CONTROL } from '../abi/control.ts'
import { TandemError } from '../errors.ts'
import { arenaBuffer } from '../ring/arena.ts'
import { FanIn } from '../ring/fan-in.ts'
import { isPoisoned, poison } from '../ring/poison.ts'
import { Ring } from '../ring/ring.ts'
import type { WaitOptions } from '../ring/wait.ts'
import { StageTimes } from '../trace/stage-times.ts'
import { Timeline } from '../trace/timeline.ts'
import type { UserStageTask } from '../user-stages/protocol.ts'
import { type RunUserCall, WorkerContext } from './context.ts'
import { instantiateKernels } from './kernels.ts'
import { loadWeights } from './load.ts'
import type { ServeResult, ServeTask } from './protocol.ts'
import { serveHandoffs } from './serve-handoffs.ts'
import { serveSteps } from './serve-steps.ts'
import { StageClock, TimedFanIn } from './stage-clock.ts'
import { userCallers } from '../user-stages/callers.ts'

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

/** What worker 0 has of user stages, all of whose calls it makes. Throws `ERR_USER_STAGE`. */
async function makeUserCalls(task: ServeTask, userStages: UserStageTask): Promise<RunUserCall> {
  const { userStages: stages = [], ...program } = task.program
  const callers = await userCallers({ ...program, userStages: stages }, userStages, task)
  return (context, { user, layer, arena }) => callers[user]!(context, { user, layer }, context.arena(arena).bytes, stages[user]!.fields)
}

/** The workers' barrier, and where a profile or a trace is wanted the clock that knows how long it was waited at. */
function makeBarrier(task: ServeTask, words: Int32Array<SharedArrayBuffer>): { barrier: FanIn; clock?: StageClock } {
  const { worker, workers, program, stageTimes } = task
  if (!stageTimes && !task.timeline) return { barrier: new FanIn(words, CONTROL.barrier, workers) }
  const barrier = new TimedFanIn(words, CONTROL.barrier, workers)
  const times = stageTimes && new StageTimes(workers, program.calls.length, stageTimes)
  const timeline = task.timeline && new Timeline(task.timeline)
  return { barrier, clock: new StageClock({ times, timeline, worker, barrier }) }
}

/** The pool's task. Resolves when stopped, or with the error that ended it after poisoning everyone else. */
export default async function serve(task: ServeTask): Promise<ServeResult> {
  const words = new Int32Array(arenaBuffer(task.control))
  const { barrier, clock } = makeBarrier(task, words)
  const ring = new Ring(words, CONTROL.ring, task.ringDepth, task.workers)
  try {
    const wait: WaitOptions = { spins: task.spins, deadlineMs: task.deadlineMs, what: 'the other workers' }
    const context = makeContext(task, words, barrier, wait)
    if (task.userStages) context.runUserCall = await makeUserCalls(task, task.userStages)
    const shouldStop = (): boolean => Atomics.load(words, CONTROL.stop) !== 0 || isPoisoned(words)
    loadWeights(context, words, task, shouldStop)
    if (shouldStop()) return {}
    Atomics.add(words, CONTROL.ready, 1)
    Atomics.notify(words, CONTROL.ready)
    if (task.program.entries) serveHandoffs(task, context, task.program.entries, clock)
    else serveSteps(task, context, ring, clock)
    return {}
  } catch (cause) {
    const error = TandemError.from(cause)
    poison(words, [barrier.epochWord, ...ring.waitWords, CONTROL.ready])
    return { error: error.toRecord() }
  }
}
