/** A hand-off to a worker thread and back: what each step of a model costs before anything is computed. */
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { Crew } from './support/crew.ts'
import { type Case, isWanted, type Settings, type Suite } from './support/suite.ts'

const ROUND = [{ amount: 1, unit: 'us' }] as const
const SPINS = 20_000

function crewCase(name: string, crew: Crew, isAsync: boolean): Case {
  return { name, work: ROUND, check: () => crew.roundAsync(), run: () => (isAsync ? crew.roundAsync() : crew.round()) }
}

/** The same by message, for comparison. */
async function* messages(): AsyncGenerator<Case> {
  const code = `const { parentPort } = require('node:worker_threads'); parentPort.on('message', (m) => parentPort.postMessage(m))`
  const worker = new Worker(code, { eval: true })
  const round = async (): Promise<void> => {
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a Worker, not a window
    worker.postMessage(1)
    await once(worker, 'message')
  }
  yield { name: 'postMessage and back', work: ROUND, check: round, run: round }
  await worker.terminate()
}

async function* cases(settings: Settings): AsyncGenerator<Case> {
  const variants = [
    { name: 'both spin', spins: SPINS, isAsync: false },
    { name: 'both sleep', spins: 0, isAsync: false },
    { name: 'worker spins, main thread waits asynchronously', spins: SPINS, isAsync: true },
    { name: 'worker sleeps, main thread waits asynchronously', spins: 0, isAsync: true },
  ]
  for (const { name, spins, isAsync } of variants) {
    if (!isWanted(settings, 'ring', name)) continue
    const crew = await Crew.start(1, { kind: 'nothing' }, spins)
    yield crewCase(name, crew, isAsync)
    await crew.stop()
  }
  if (isWanted(settings, 'ring', 'postMessage and back')) yield* messages()
}

export const suite: Suite = { name: 'ring', about: 'round trip to one worker thread', bothModes: false, cases }
