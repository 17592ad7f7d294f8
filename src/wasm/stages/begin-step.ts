/** Before the first stage: brings the step's record and its rope angles to every arena. */
import { RUN_WORDS, STEP_HEADER } from '../../abi/step.ts'
import type { WorkerContext } from '../context.ts'

/** `record`: the step's bytes in the ring slot. Takes over the step's counts; the copies are shared out among the workers. */
export function beginStep(context: WorkerContext, record: Uint8Array<SharedArrayBuffer>, header: Int32Array<SharedArrayBuffer>): void {
  context.tokens = header[STEP_HEADER.tokens]!
  context.runs = header[STEP_HEADER.runs]!
  context.outputs = header[STEP_HEADER.outputs]!
  context.header = header
  copyRecord(context, record)
  writeAngles(context, header)
}

function copyRecord(context: WorkerContext, record: Uint8Array<SharedArrayBuffer>): void {
  const { arena: at, step } = context.program
  const used: [number, number][] = [
    [step.tokenIds, context.tokens * 4],
    [step.positions, context.tokens * 4],
    [step.cacheRows, context.tokens * 4],
    [step.outputs, context.outputs * 4],
    [step.runs, context.runs * RUN_WORDS * 4],
    [step.blockTables, context.runs * step.blocksPerSequence * 4],
  ]
  context.arenas.forEach(({ bytes }, index) => {
    if (index % context.workers !== context.worker) return
    for (const [offset, length] of used) bytes.set(record.subarray(offset, offset + length), at.step + offset)
  })
}

/** angles[t] = cos, then sin, of position * frequency; in float64, because f32 loses the phase of long contexts. */
function writeAngles(context: WorkerContext, slot: Int32Array<SharedArrayBuffer>): void {
  const { arena: at, step, shape } = context.program
  const { rotary, ropeFrequencies } = shape
  const { begin, end } = context.share(context.tokens)
  const pairs = rotary / 2
  const row = new Float32Array(rotary)
  for (let token = begin; token < end; token++) {
    const position = slot[step.positions / 4 + token]!
    for (let pair = 0; pair < pairs; pair++) {
      const angle = position * ropeFrequencies[pair]!
      row[pair] = Math.cos(angle)
      row[pairs + pair] = Math.sin(angle)
    }
    for (const { floats } of context.arenas) floats.set(row, at.angles / 4 + token * rotary)
  }
}
