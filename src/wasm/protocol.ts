/** What the main thread and a worker of the pool say to each other: once at the start, once at the end. Everything else is in shared memory. */
import type { ErrorRecord } from '../errors.ts'
import type { Program } from '../pipeline/program.ts'
import type { FileRange } from '../native/map-file.ts'
import type { Load } from '../placement/loads.ts'
import type { UserStageTask } from '../user-stages/protocol.ts'

/** Weights in a file of panels (`sidecar/`), which the main thread keeps open while they are loaded. */
export interface PanelFile {
  readonly path: string
  readonly descriptor: number
  /** Read into place as they are. */
  readonly copies: readonly FileRange[]
}

/** The argument of a worker's one `serve` task. */
export interface ServeTask {
  readonly worker: number
  readonly workers: number
  readonly module: WebAssembly.Module
  /** Control block, then the ring's slots (`abi/control.ts`). */
  readonly control: WebAssembly.Memory
  readonly arenas: readonly WebAssembly.Memory[]
  /** Bytes at an arena's start that belong to the kernel module. */
  readonly moduleBytes: number
  readonly program: Program
  readonly loads: readonly Load[]
  /** The model file's shards. */
  readonly paths: readonly string[]
  /** Taken after the loads. */
  readonly panels: PanelFile | undefined
  readonly ringDepth: number
  /** Byte offset of slot 0 in `control`; slots are `slotBytes` apart. */
  readonly slots: number
  readonly slotBytes: number
  /** Loads before a wait sleeps; 0 when threads outnumber cores. */
  readonly spins: number
  /** Deadline of a wait inside a step, ms. */
  readonly deadlineMs: number
  /** Where to leave the time of every call (`trace/stage-times.ts`), if anybody wants to know. */
  readonly stageTimes: SharedArrayBuffer | undefined
  /** Where to leave every call's beginning and end (`trace/timeline.ts`), likewise. */
  readonly timeline: SharedArrayBuffer | undefined
  /** Worker 0 of a program with user stages: what they need. */
  readonly userStages: UserStageTask | undefined
}

/** How a `serve` task ended. Errors are records: a thrown error would lose its code on the way. */
export type ServeResult = { readonly error?: ErrorRecord }
