/** An observer's thread: takes records from its queue, one after the other, and gives them to the user's function. */
import { parentPort, workerData } from 'node:worker_threads'
import { invariant, TandemError } from '../errors.ts'
import { isPoisoned, poison } from '../ring/poison.ts'
import { Ring } from '../ring/ring.ts'
import { importUserFunction, userContext, userFailure } from './functions.ts'
import { type ObserverTask, type Post, QUEUE, queueRecords } from './protocol.ts'
import { readView, RECORD_HEADER, recordPlaces } from './view.ts'

const { program, user, queue, port } = workerData as ObserverTask
const stage = program.userStages[user]
invariant(stage, 'an observer without a user stage')
const words = new Int32Array(queue)
const ring = new Ring(words, QUEUE.ring, stage.queue, 1)
const post: Post = (message) => port.postMessage(message)

/** Ends the queue: whoever fills it shall not wait for this thread any more. */
function fail(error: TandemError): void {
  post({ kind: 'failure', user, error: error.toRecord() })
  poison(words, ring.waitWords)
}

async function observe(): Promise<void> {
  const run = await importUserFunction(stage!)
  post({ kind: 'ready', user })
  const { places, bytes } = recordPlaces(program, stage!)
  for (let sequence = 1; ; sequence = (sequence + 1) | 0) {
    await ring.whenPublished(sequence, { deadlineMs: Infinity, what: 'something to observe' })
    const base = queueRecords(stage!.queue) + ring.slotOf(sequence) * bytes
    const header = (word: number): number => words[base / 4 + word]!
    const counts = {
      tokens: header(RECORD_HEADER.tokens),
      runs: header(RECORD_HEADER.runs),
      outputs: header(RECORD_HEADER.outputs),
    }
    const step = header(RECORD_HEADER.step)
    const layer = header(RECORD_HEADER.layer) < 0 ? undefined : header(RECORD_HEADER.layer)
    try {
      const view = readView(queue, places, base, counts, () => false)
      const value = await run(view, userContext(stage!, program.shape, step, layer))
      if (value !== undefined) post({ kind: 'value', user, step, layer, value })
    } catch (cause) {
      return fail(userFailure(stage!, layer, cause))
    }
    // after the value is posted: whoever sees the record completed finds the value in the port
    ring.release(sequence)
  }
}

// waiting for shared memory does not keep a thread alive, a port does
parentPort?.on('message', () => undefined)
try {
  await observe()
} catch (error) {
  if (!isPoisoned(words)) fail(TandemError.from(error))
}
parentPort?.removeAllListeners('message')
