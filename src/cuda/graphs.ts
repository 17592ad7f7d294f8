/** Decode steps recorded as graphs, by the numbers that a graph depends on. */
import type { CudaFunctions, Handle } from './library.ts'

/** Graphs kept of each part of a step: a few batch sizes, each at a few lengths of context. */
const MOST_GRAPHS = 32

/** Steps of one token per sequence with at most this many are worth a graph: longer ones are no longer bound by launches. */
export const GRAPH_TOKENS = 8

/** The context bucket of a step: a power of two, so that a growing context needs a new graph only when it has doubled. */
export function keysBucket(mostKeys: number, limit: number): number {
  return Math.min(limit, Math.max(256, 2 ** Math.ceil(Math.log2(mostKeys))))
}

/** The least recently used graph makes room for a new one. A step is recorded when its numbers come a second time: many never do. */
export class Graphs {
  readonly #tcu: CudaFunctions
  readonly #engine: Handle
  readonly #most: number
  /** In order of last use; undefined for numbers that were seen once. */
  readonly #graphs = new Map<string, Handle | undefined>()

  /** `parts`: of a step. */
  constructor(tcu: CudaFunctions, engine: Handle, parts: number) {
    this.#tcu = tcu
    this.#engine = engine
    this.#most = MOST_GRAPHS * parts
  }

  /** The graph for some numbers, `record`ed now if they were seen before; undefined when the step must be queued call by call. */
  get(key: string, record: () => void): Handle | undefined {
    const isKnown = this.#graphs.has(key)
    const graph = this.#graphs.get(key) ?? (isKnown ? this.#record(record) : undefined)
    this.#graphs.delete(key)
    this.#graphs.set(key, graph)
    this.#makeRoom()
    return graph
  }

  #record(record: () => void): Handle {
    this.#tcu.tcu_capture_begin(this.#engine)
    record()
    return this.#tcu.tcu_capture_end(this.#engine)
  }

  #makeRoom(): void {
    for (const [key, graph] of this.#graphs) {
      if (this.#graphs.size <= this.#most) return
      this.#graphs.delete(key)
      if (graph !== undefined) this.#tcu.tcu_graph_free(this.#engine, graph)
    }
  }
}
