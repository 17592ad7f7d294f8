/** What the device writes to host memory, as the main thread sees it: `placement/results-layout.ts` says where it lies. */
import type { BestLogits } from '../abi/step.ts'
import type { CudaProgram } from '../pipeline/program.ts'
import { arenaBuffer, createArena } from '../ring/arena.ts'

/** Index of the word that tells how much is loaded. */
export const LOADED_WORD = 0

/** Marks of a step, when a trace is wanted: one at its beginning and one behind every call. */
export const markCount = ({ calls }: CudaProgram, isTraced: boolean): number => (isTraced ? calls.length + 1 : 0)

/** The memory, page-aligned so that it can be registered. */
export class Results {
  readonly memory: WebAssembly.Memory
  readonly words: Int32Array<SharedArrayBuffer>
  readonly #program: CudaProgram
  readonly #top: number

  /** `top`: best logits that there is room for in each row. */
  constructor(program: CudaProgram, top: number, marks: number) {
    this.#program = program
    this.#top = top
    this.memory = createArena(program.results.end + marks * 8)
    this.words = new Int32Array(arenaBuffer(this.memory), 0, LOADED_WORD + 1)
  }

  /** f32[vocabulary] of an output row; a view. */
  logits(row: number): Float32Array<SharedArrayBuffer> {
    const { results, shape } = this.#program
    return this.#row(results.logits, row, shape.vocabulary)
  }

  /** f32[hidden] of an output row, of a step that asked for it; a view. */
  hidden(row: number): Float32Array<SharedArrayBuffer> {
    const { results, shape } = this.#program
    return this.#row(results.hidden, row, shape.hidden)
  }

  /** The first `count` of the best of an output row, of a step that asked for as many; views. */
  best(row: number, count: number): BestLogits {
    const { topIds, topLogits } = this.#program.results
    const buffer = arenaBuffer(this.memory)
    const offset = row * this.#top * 4
    return { ids: new Int32Array(buffer, topIds + offset, count), logits: new Float32Array(buffer, topLogits + offset, count) }
  }

  #row(offset: number, row: number, columns: number): Float32Array<SharedArrayBuffer> {
    return new Float32Array(arenaBuffer(this.memory), offset + row * columns * 4, columns)
  }
}
