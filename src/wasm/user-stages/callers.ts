/** Worker 0's side of user stages: runs steerers in line, and copies what observers see into their queues. */
import { TandemError } from '../../errors.ts'
import type { Program, ProgramUserStage, UserCall } from '../../pipeline/program.ts'
import { isPoisoned, poison } from '../../ring/poison.ts'
import { Ring } from '../../ring/ring.ts'
import { waitWhile } from '../../ring/wait.ts'
import type { UserCallers, WorkerArena, WorkerContext } from '../context.ts'
import { type AnyUserFunction, importUserFunction, userContext, userFailure } from './functions.ts'
import { QUEUE, queueRecords, type UserStageMessage, type UserStageTask } from './protocol.ts'
import { arenaPlaces, copyView, readView, RECORD_HEADER, recordPlaces } from './view.ts'

/** Runs one user stage for the step at hand. */
type Caller = (context: WorkerContext, call: UserCall, arena: WorkerArena) => void

type Post = (message: UserStageMessage) => void

/** Calls a function on what the model works on. Its failure abandons the step: what the step has written so far is read by no later one. */
function steerer(program: Program, stage: ProgramUserStage, run: AnyUserFunction, post: Post): Caller {
  const places = arenaPlaces(program, stage)
  return (context, { user, layer }, { bytes }) => {
    const { step } = context
    try {
      const view = readView(bytes.buffer, places, 0, context, ({ writable }) => writable)
      const value = run(view, userContext(stage, program.shape, step, layer))
      if (value instanceof Promise) {
        value.catch(() => undefined)
        throw new TypeError('a function that steers must not be async')
      }
      if (value !== undefined) post({ kind: 'value', user, step, layer, value })
    } catch (cause) {
      post({ kind: 'failure', user, step, error: userFailure(stage, layer, cause).toRecord() })
      context.abandonStep()
    }
  }
}

/** Copies what an observer sees into its queue. Never fails the step. */
function feeder(program: Program, stage: ProgramUserStage, queue: SharedArrayBuffer, deadlineMs: number, post: Post): Caller {
  const from = arenaPlaces(program, stage)
  const { places, bytes: recordBytes } = recordPlaces(program, stage)
  const words = new Int32Array(queue)
  const target = new Uint8Array(queue)
  const ring = new Ring(words, QUEUE.ring, stage.queue, 1)

  /** A free record; undefined when there is none and the call is left out. */
  const claim = (user: number): number | undefined => {
    if (isPoisoned(words)) return undefined
    // read before looking for room: what is completed in between must not be waited for
    const { completed } = ring
    const free = ring.tryClaim()
    if (free !== undefined || stage.whenFull === 'drop') return free
    try {
      waitWhile(words, ring.waitWords[1]!, completed, { deadlineMs, what: `user stage '${stage.name}'` })
      return ring.tryClaim()
    } catch (error) {
      const { code, message } = TandemError.from(error)
      // poisoned: it has failed, and has said so itself
      if (code !== 'ERR_TIMEOUT') return undefined
      post({
        kind: 'failure',
        user,
        error: new TandemError('ERR_USER_STAGE', `user stage '${stage.name}' does not keep up: ${message}`).toRecord(),
      })
      poison(words, ring.waitWords)
      return undefined
    }
  }

  return (context, { user, layer }, { bytes }) => {
    const sequence = claim(user)
    if (sequence === undefined) {
      Atomics.add(words, QUEUE.dropped, 1)
      return
    }
    const base = queueRecords(stage.queue) + ring.slotOf(sequence) * recordBytes
    const header = base / 4
    words[header + RECORD_HEADER.step] = context.step
    words[header + RECORD_HEADER.layer] = layer ?? -1
    words[header + RECORD_HEADER.tokens] = context.tokens
    words[header + RECORD_HEADER.runs] = context.runs
    words[header + RECORD_HEADER.outputs] = context.outputs
    copyView(bytes, from, target, places, base, context)
    ring.publish(sequence)
  }
}

/** The callers of a program's user stages. Throws `ERR_USER_STAGE` when a function cannot be imported. */
export async function userCallers(program: Program, { port, queues }: UserStageTask, deadlineMs: number): Promise<UserCallers> {
  const post: Post = (message) => port.postMessage(message)
  const callers: Caller[] = []
  for (const [user, stage] of (program.userStages ?? []).entries()) {
    const queue = queues[user]
    callers.push(
      queue
        ? feeder(program, stage, queue, deadlineMs / 2, post) // the other workers wait for this one meanwhile
        : steerer(program, stage, await importUserFunction(stage), post),
    )
  }
  return (context, call) => callers[call.user]!(context, call, context.arena(call.arena))
}
