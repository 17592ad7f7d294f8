/** A thread of a `Crew`: claims a round, does its share, releases. */
import { parentPort, workerData } from 'node:worker_threads'
import { FanIn } from '../../src/ring/fan-in.ts'
import { Ring } from '../../src/ring/ring.ts'
import { kernelsOf, runShare } from './arena.ts'
import { type CrewData, FAN_IN_BASE, RING_BASE, RING_DEPTH, WAIT } from './crew.ts'
import { readLoop, STRIDE } from './read-loop.ts'

const { job, words, thread, threads, spins } = workerData as CrewData
const options = { ...WAIT, spins }

function shareOf(): () => void {
  switch (job.kind) {
    case 'nothing':
      return () => undefined
    case 'barriers': {
      const fanIn = new FanIn(words, FAN_IN_BASE, threads)
      return () => {
        for (let round = 0; round < job.rounds; round++) fanIn.arriveAndWait(options)
      }
    }
    case 'product': {
      const kernels = kernelsOf(job.arena, thread)
      return () => runShare(kernels, job.product, thread, threads)
    }
    default: {
      const read = readLoop(job.memory)
      const bytes = Math.floor(job.bytes / threads / STRIDE) * STRIDE
      return () => void read(job.begin + thread * bytes, job.begin + (thread + 1) * bytes)
    }
  }
}

const share = shareOf()
const ring = new Ring(words, RING_BASE, RING_DEPTH, threads)
// oxlint-disable-next-line unicorn/require-post-message-target-origin -- a MessagePort, not a window
parentPort!.postMessage('ready')
for (let sequence = 1; ; sequence++) {
  ring.claim(sequence, { ...options, deadlineMs: Infinity })
  share()
  ring.release(sequence)
}
