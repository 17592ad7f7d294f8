/** What the main thread and the CUDA worker say to each other: a few calls in the engine's life. Steps go through shared memory. */
import type { ErrorRecord } from '../errors.ts'
import type { CudaProgram } from '../pipeline/program.ts'
import type { DeviceLoad } from '../placement/device-loads.ts'
import type { ArenaLayout, CudaPlan, MachineDevice } from '../placement/types.ts'
import type { UserStageTask } from '../user-stages/protocol.ts'
import type { Handle } from './library.ts'

/** How a call ended. Errors are records: a thrown error would lose its code on the way. */
export type Outcome<T> = { readonly value: T } | { readonly error: ErrorRecord }

/** All that the worker needs to open a device. */
export interface CudaTask {
  /** The library's file. */
  readonly library: string
  readonly plan: CudaPlan
  readonly program: CudaProgram
  readonly loads: readonly DeviceLoad[]
  /** The model file's shards. */
  readonly paths: readonly string[]
  /** Control block, then the step ring's slots (`ring/step-port.ts`). */
  readonly control: WebAssembly.Memory
  readonly ringDepth: number
  readonly slots: number
  readonly slotBytes: number
  /** The pool's arenas and the layout of their prefix; none where the device has all stages. */
  readonly arenas: readonly WebAssembly.Memory[]
  readonly arena: ArenaLayout | undefined
  /** Where the device leaves logits (`placement/results-layout.ts`). */
  readonly results: WebAssembly.Memory
  /** Loads before a wait for the device sleeps, and before one for the next step; 0 when threads outnumber cores. */
  readonly spins: number
  readonly idleSpins: number
  /** Longest that a step may stand still, ms. */
  readonly deadlineMs: number
  /** Where to leave what the device did when, and what this thread did (`trace/timeline.ts`), if anybody wants to know. */
  readonly trace: CudaTrace | undefined
  /** Of a program with user stages: what the worker needs to call them. */
  readonly userStages: UserStageTask | undefined
}

/** Timelines of the device's stream, one event for each call of the program, and of the worker: see `WORKER_ENTRIES`. */
export interface CudaTrace {
  readonly stream: SharedArrayBuffer
  readonly worker: SharedArrayBuffer
}

/** Entries of the worker's timeline. */
export const WORKER_ENTRIES = ['queue', 'watch'] as const

/** What a worker did while it served. */
export interface CudaStats {
  readonly steps: number
  /** Steps that were one launch of a graph recorded before. */
  readonly graphSteps: number
}

/** The worker's functions, in the order of an engine's life. `serve` keeps the thread busy until the engine stops it. */
export interface CudaWorkerApi {
  devices(library: string): Promise<Outcome<readonly MachineDevice[]>>
  open(task: CudaTask): Promise<Outcome<Handle>>
  /** Ends early, without an error, when the engine is stopped or fails elsewhere. */
  load(): Promise<Outcome<void>>
  serve(): Promise<Outcome<CudaStats>>
  close(): Promise<Outcome<void>>
  /** Closes what a worker left behind that has died. */
  reclaim(library: string, engine: Handle): Promise<Outcome<void>>
}
