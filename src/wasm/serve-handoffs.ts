/**
 * A worker's life beside a device: hand-off after hand-off, it runs the entry of the program that the device names, on what the device has written
 * to the entry's arena. The device waits for `completed`; it cannot wake a sleeper, so its worker notifies (`src/cuda`).
 */
import { CONTROL, HANDOFF } from '../abi/control.ts'
import { TandemError } from '../errors.ts'
import type { ProgramEntry } from '../pipeline/program.ts'
import { arenaBuffer } from '../ring/arena.ts'
import { Ring } from '../ring/ring.ts'
import type { WaitOptions } from '../ring/wait.ts'
import type { WorkerContext } from './context.ts'
import type { ServeTask } from './protocol.ts'
import { runStage } from './run-stage.ts'
import type { StageClock } from './stage-clock.ts'

/** The entry that the device has named. Throws `ERR_INTERNAL` for words that no device of ours writes. */
function entryOf(words: Int32Array<SharedArrayBuffer>, entries: readonly ProgramEntry[], mostTokens: number): [ProgramEntry, number] {
  const entry = entries[words[CONTROL.handoff + HANDOFF.entry]!]
  const tokens = words[CONTROL.handoff + HANDOFF.tokens]!
  if (!entry || tokens < 1 || tokens > mostTokens) {
    throw new TandemError('ERR_INTERNAL', `a device handed over ${tokens} tokens for entry ${words[CONTROL.handoff + HANDOFF.entry]}`)
  }
  return [entry, tokens]
}

/** Serves hand-offs until the engine stops the pool. Throws `ERR_POISONED`, `ERR_TIMEOUT`, `ERR_KERNEL`, `ERR_INTERNAL`. */
export function serveHandoffs(
  task: ServeTask,
  context: WorkerContext,
  entries: readonly ProgramEntry[],
  clock: StageClock | undefined,
): void {
  const words = new Int32Array(arenaBuffer(task.control))
  const ring = new Ring(words, CONTROL.handoff + HANDOFF.published, 1, 1)
  const idle: WaitOptions = { spins: task.spins, deadlineMs: Infinity, what: 'the next hand-off' }
  for (let sequence = 1; ; sequence = (sequence + 1) | 0) {
    ring.claim(sequence, idle)
    if (Atomics.load(words, CONTROL.stop) !== 0) return
    const [{ begin, end }, tokens] = entryOf(words, entries, task.program.ubatch)
    context.tokens = tokens
    clock?.begin(tokens, 1)
    for (let call = begin; call < end; call++) {
      if (call > begin) context.sync()
      runStage(context, context.program.calls[call]!)
      clock?.book(call + 1)
    }
    context.sync(() => void ring.release(sequence))
  }
}
