/**
 * Memory of the host that the device writes results to, page-aligned so that it can be registered:
 *
 *     words      i32[16]               written by the worker: file bytes loaded so far, in units of LOADED_UNIT_BYTES
 *     marks      u64[marks]            the device's clock, ns, when a trace is wanted
 *     topIds     i32[outputs, top]
 *     topLogits  f32[outputs, top]
 *     logits     f32[outputs, vocabulary]
 */
import type { CudaProgram } from '../pipeline/program.ts'
import type { DeviceShape } from '../placement/types.ts'
import { arenaBuffer, createArena, Layout } from '../ring/arena.ts'

/** Index of the word that tells how much is loaded. */
export const LOADED_WORD = 0

const WORDS_BYTES = 64

/** Byte offsets. */
export interface ResultsLayout {
  readonly marks: number
  readonly topIds: number
  readonly topLogits: number
  readonly logits: number
  readonly bytes: number
}

/** Marks of a step, when a trace is wanted: one at its beginning and one behind every call. */
export const markCount = ({ calls }: CudaProgram, isTraced: boolean): number => (isTraced ? calls.length + 1 : 0)

/** The layout for a shape and a number of marks. */
export function resultsLayout({ outputs, top, vocabulary }: DeviceShape, marks: number): ResultsLayout {
  const layout = new Layout(WORDS_BYTES)
  const at = {
    marks: layout.reserve(marks * 8),
    topIds: layout.reserve(outputs * top * 4),
    topLogits: layout.reserve(outputs * top * 4),
    logits: layout.reserve(outputs * vocabulary * 4),
  }
  return { ...at, bytes: layout.bytes }
}

/** The main thread's view. */
export class Results {
  readonly memory: WebAssembly.Memory
  readonly words: Int32Array<SharedArrayBuffer>
  readonly #shape: DeviceShape
  readonly #layout: ResultsLayout

  constructor(shape: DeviceShape, marks: number) {
    this.#shape = shape
    this.#layout = resultsLayout(shape, marks)
    this.memory = createArena(this.#layout.bytes)
    this.words = new Int32Array(arenaBuffer(this.memory), 0, WORDS_BYTES / 4)
  }

  /** f32[vocabulary] of an output row; a view. */
  logits(row: number): Float32Array<SharedArrayBuffer> {
    const { vocabulary } = this.#shape
    return new Float32Array(arenaBuffer(this.memory), this.#layout.logits + row * vocabulary * 4, vocabulary)
  }
}
