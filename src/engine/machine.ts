/** What this machine offers; the only place that asks it. */
import { availableParallelism } from 'node:os'
import type { Machine } from '../placement/types.ts'

/** Cores this process may use, memory that can be taken now (control groups counted), executors of this build. */
export function thisMachine(): Machine {
  return { cores: availableParallelism(), availableBytes: process.availableMemory(), executors: new Set(['wasm']) }
}
