/** Queues the calls of a part of a step, and counts the hand-offs among them. */
import { CUDA_ROWS } from '../abi/cuda.ts'
import { STEP_HEADER } from '../abi/step.ts'
import type { CudaStageCall } from '../pipeline/program.ts'
import type { CudaFunctions, Handle } from './library.ts'
import type { Part, PartCall, RowCopy } from './parts.ts'
import { queueStage, type Wanted } from './stages.ts'
import type { Watch } from './watch.ts'

/** What parts are queued with. */
export interface PartQueueOptions {
  readonly tcu: CudaFunctions
  readonly engine: Handle
  readonly watch: Watch
  /** Address of the results' memory. */
  readonly results: number
  /** Whether the device's clock is wanted behind every call. */
  readonly isTraced: boolean
}

/** Hand-offs that may be queued and not completed while more is queued. */
const HANDOFFS_AHEAD = 1

/** See the file's header. */
export class PartQueue {
  readonly #options: PartQueueOptions
  /** Hand-offs queued since the beginning; they wrap as the device's count does. */
  #handoffs = 0
  #isHandedOver = false

  constructor(options: PartQueueOptions) {
    this.#options = options
  }

  /** Whether what was queued ends between a hand-off and the wait for it. */
  get isHandedOver(): boolean {
    return this.#isHandedOver
  }

  /** Queues everything, for a graph: nothing runs, so nothing is counted. */
  record(part: Part, wanted: Wanted): void {
    this.#begin(part)
    for (const [index, call] of part.calls.entries()) this.#queue(part, index, call, wanted)
    this.#options.tcu.tcu_end_step(this.#options.engine)
  }

  /** Launches a graph of the part. */
  launch(part: Part, graph: Handle): void {
    const { tcu, engine, watch } = this.#options
    tcu.tcu_graph_launch(engine, graph)
    watch.alertPool()
    for (const { stage } of part.calls) this.#count(stage)
  }

  /**
   * Queues call by call, never far ahead of the pool, and wakes the pool meanwhile. False when the step was cancelled, which is looked at
   * between layers: inside one, a hand-off that was published must also be awaited. `layer`: of the call before the part.
   */
  queueWatched(part: Part, layer: number, wanted: Wanted, header: Int32Array<SharedArrayBuffer>): boolean {
    const { tcu, engine, watch } = this.#options
    let isWhole = true
    watch.alertPool()
    this.#begin(part)
    for (const [index, call] of part.calls.entries()) {
      watch.look()
      if (call.layer !== layer) {
        layer = call.layer
        watch.until(() => ((this.#handoffs - watch.completed) | 0) <= HANDOFFS_AHEAD)
        isWhole = Atomics.load(header, STEP_HEADER.cancel) === 0
        if (!isWhole) break
      }
      this.#queue(part, index, call, wanted)
      this.#count(call.stage)
    }
    tcu.tcu_end_step(engine)
    return isWhole
  }

  #begin({ first, writes }: Part): void {
    const { tcu, engine } = this.#options
    for (const copy of writes) tcu.tcu_write_rows(engine, CUDA_ROWS[copy.rows], this.#address(copy))
    this.#mark(first)
  }

  #queue({ first }: Part, index: number, call: PartCall, wanted: Wanted): void {
    const { tcu, engine } = this.#options
    if (call.stage === 'user') for (const copy of call.reads) tcu.tcu_read_rows(engine, CUDA_ROWS[copy.rows], this.#address(copy))
    else if (call.stage !== 'head' || wanted.outputs > 0) queueStage(tcu, engine, call, wanted)
    this.#mark(first + index + 1)
  }

  #address({ offset }: RowCopy): number {
    return this.#options.results + offset
  }

  #count(stage: CudaStageCall['stage'] | 'user'): void {
    if (stage === 'awaitRouted') this.#isHandedOver = false
    if (stage !== 'publish') return
    this.#isHandedOver = true
    this.#handoffs = (this.#handoffs + 1) | 0
  }

  /** The device's clock behind call `index - 1`, where a trace is wanted. */
  #mark(index: number): void {
    const { tcu, engine, isTraced } = this.#options
    if (isTraced) tcu.tcu_mark(engine, index)
  }
}
