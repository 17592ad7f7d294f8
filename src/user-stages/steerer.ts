/**
 * The steerers' thread, where a GPU runs the steps: calls one function after the other on the memory that the GPU's worker has named, while that
 * worker waits. The worker itself never runs a user's code: whatever that does, the GPU stays in good hands.
 */
import { workerData } from 'node:worker_threads'
import { TandemError } from '../errors.ts'
import { isPoisoned, poison } from '../ring/poison.ts'
import { Ring } from '../ring/ring.ts'
import { importUserFunction } from './functions.ts'
import { type Post, STEERING, STEERING_FIELDS, type SteererTask } from './protocol.ts'
import { steer, type Steerer } from './steer.ts'

const { program, memory, steering, spins, port } = workerData as SteererTask
const words = new Int32Array(steering)
const ring = new Ring(words, STEERING.ring, 1, 1)
const post: Post = (message) => port.postMessage(message)

/** The functions, by index in the program's user stages. Posts the failure of each that cannot be imported. */
async function importSteerers(): Promise<Map<number, Steerer>> {
  const steerers = new Map<number, Steerer>()
  for (const [user, stage] of program.userStages.entries()) {
    if (!stage.steer) continue
    try {
      steerers.set(user, { program, stage, run: await importUserFunction(stage), post })
      post({ kind: 'ready', user })
    } catch (error) {
      post({ kind: 'failure', user, error: TandemError.from(error).toRecord() })
    }
  }
  return steerers
}

/** One call, as the words say. */
function call(steerers: ReadonlyMap<number, Steerer>): void {
  const word = (name: keyof typeof STEERING): number => words[STEERING[name]]!
  const user = word('user')
  const layer = word('layer') < 0 ? undefined : word('layer')
  const at = { step: word('step'), tokens: word('tokens'), runs: word('runs'), outputs: word('outputs') }
  const steerer = steerers.get(user)!
  const fields = steerer.stage.fields.map((field, index) => ({ ...field, offset: (words[STEERING_FIELDS + index]! >>> 0) * 4 }))
  words[STEERING.isAbandoned] = steer(steerer, at, { user, layer }, memory, fields) ? 0 : 1
}

const steerers = await importSteerers()
try {
  for (let sequence = 1; ; sequence = (sequence + 1) | 0) {
    ring.claim(sequence, { spins, deadlineMs: Infinity, what: 'something to steer' })
    call(steerers)
    // after values and failures are posted: whoever sees the step's end finds them in the port
    ring.release(sequence)
  }
} catch (error) {
  // whoever waits shall not wait for this thread any more; without a poison the thread's end is news
  if (!isPoisoned(words)) {
    poison(words, ring.waitWords)
    throw error
  }
}
