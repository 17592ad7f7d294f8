/** The side of user stages that is in the step's path: calls steerers and waits for them, and copies what observers see into their queues. */
import { TandemError } from '../errors.ts'
import type { ProgramUserStage, UserStageProgram, ViewField } from '../pipeline/program.ts'
import { isPoisoned, poison } from '../ring/poison.ts'
import { Ring } from '../ring/ring.ts'
import { waitWhile } from '../ring/wait.ts'
import { importUserFunction } from './functions.ts'
import { type Post, QUEUE, queueRecords, STEERING, STEERING_FIELDS, type UserStageCall, type UserStageTask } from './protocol.ts'
import { steer } from './steer.ts'
import { copyView, RECORD_HEADER, recordPlaces, type StepAtHand, viewPlaces } from './view.ts'

/**
 * Calls a user stage on what lies at `fields` of `bytes`, with the step's record at the program's place. False when the step is to be abandoned:
 * what it has written so far is read by no later one. Throws `ERR_TIMEOUT`, `ERR_POISONED`.
 */
export type UserCaller = (
  at: StepAtHand,
  call: UserStageCall,
  bytes: Uint8Array<SharedArrayBuffer>,
  fields: readonly ViewField[],
) => boolean

/** Copies what an observer sees into its queue. Never fails the step. */
function feeder(program: UserStageProgram, stage: ProgramUserStage, queue: SharedArrayBuffer, deadlineMs: number, post: Post): UserCaller {
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

  return (at, { user, layer }, bytes, fields) => {
    const sequence = claim(user)
    if (sequence === undefined) {
      Atomics.add(words, QUEUE.dropped, 1)
      return true
    }
    const base = queueRecords(stage.queue) + ring.slotOf(sequence) * recordBytes
    const header = base / 4
    words[header + RECORD_HEADER.step] = at.step
    words[header + RECORD_HEADER.layer] = layer ?? -1
    words[header + RECORD_HEADER.tokens] = at.tokens
    words[header + RECORD_HEADER.runs] = at.runs
    words[header + RECORD_HEADER.outputs] = at.outputs
    copyView(bytes, viewPlaces(program, fields), target, places, base, at)
    ring.publish(sequence)
    return true
  }
}

/** Has a function that steers called in the steerers' thread, which sees the same memory, and waits for it. */
function remoteSteerer(stage: ProgramUserStage, steering: SharedArrayBuffer, spins: number, deadlineMs: number): UserCaller {
  const words = new Int32Array(steering)
  const ring = new Ring(words, STEERING.ring, 1, 1)
  return (at, { user, layer }, _bytes, fields) => {
    const sequence = ring.tryClaim()
    if (sequence === undefined) throw new TandemError('ERR_INTERNAL', 'the steerers are still at work on an earlier call')
    const values = { user, layer: layer ?? -1, step: at.step, tokens: at.tokens, runs: at.runs, outputs: at.outputs, isAbandoned: 0 }
    for (const [name, value] of Object.entries(values)) words[STEERING[name as keyof typeof values]] = value
    fields.forEach(({ offset }, index) => void (words[STEERING_FIELDS + index] = offset / 4))
    ring.publish(sequence)
    waitWhile(words, ring.waitWords[1]!, (sequence - 1) | 0, { spins, deadlineMs, what: `user stage '${stage.name}'` })
    return words[STEERING.isAbandoned] === 0
  }
}

/**
 * The callers of a program's user stages, by index. Steerers are called in this thread, or, with `task.steering`, in one of their own. Throws
 * `ERR_USER_STAGE` when a function that is called here cannot be imported.
 */
export async function userCallers(
  program: UserStageProgram,
  { port, queues, steering }: UserStageTask,
  { deadlineMs, spins }: { readonly deadlineMs: number; readonly spins: number },
): Promise<UserCaller[]> {
  const post: Post = (message) => port.postMessage(message)
  const callers: UserCaller[] = []
  for (const [user, stage] of program.userStages.entries()) {
    const queue = queues[user]
    // the model waits meanwhile
    if (queue) callers.push(feeder(program, stage, queue, deadlineMs / 2, post))
    else if (steering) callers.push(remoteSteerer(stage, steering, spins, deadlineMs))
    else {
      const run = await importUserFunction(stage)
      callers.push((at, call, bytes, fields) => steer({ program, stage, run, post }, at, call, bytes.buffer, fields))
    }
  }
  return callers
}
