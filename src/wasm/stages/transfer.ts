/** transfer: copies activations to the arena that the next stages work in. Each worker copies its tokens' bytes. */
import type { TransferCall } from '../../pipeline/program.ts'
import type { WorkerContext } from '../context.ts'

/** Runs the copy on this worker's share. */
export function transfer(context: WorkerContext, call: TransferCall): void {
  const { begin, end } = context.share(context.tokens)
  if (begin >= end) return
  const source = context.arena(call.from).bytes
  const target = context.arena(call.arena).bytes
  for (const { offset, bytesPerToken } of call.buffers) {
    const start = offset + begin * bytesPerToken
    target.set(source.subarray(start, offset + end * bytesPerToken), start)
  }
}
