/**
 * The step loop: turns requests of many sequences into steps, keeps the executor's ring filled, and gives every request its logits.
 *
 *     evaluate() --> waiting --schedule--> in flight --completed--> logits to the request, or back to waiting for its next tokens
 *
 * The next step is published early only behind steps that have no logits to read, because the executor has one place for logits.
 */
import type { BestLogits } from '../abi/step.ts'
import { TandemError } from '../errors.ts'
import type { Limits, StepLayout } from '../placement/types.ts'
import type { StepSlot } from '../ring/step-port.ts'
import type { BlockTable } from './kv-blocks.ts'
import { type Outputs, type Pick, schedule } from './scheduler.ts'
import { writeStep } from './step.ts'
import { StepWatch } from './step-watch.ts'

/** What the loop needs of an executor. */
export interface StepExecutor {
  tryClaim(): StepSlot | undefined
  publish(slot: StepSlot): void
  cancel(slot: StepSlot): void
  whenCompleted(slot: StepSlot): Promise<boolean>
  logits(row: number): Float32Array<SharedArrayBuffer>
  /** The `count` best logits of an output of a step that asked for the best; views. Absent where there is nobody to find them. */
  best?(row: number, count: number): BestLogits
}

/** For whom the best logits are enough. */
export interface BestWanted {
  readonly count: number
  /** Told in place of `onLogits`, unless another request of the step wants all logits; the views are valid during the call only. */
  readonly onBest: (best: BestLogits) => void
}

/** Tokens of one sequence to be evaluated. */
export interface EvaluateRequest {
  readonly table: BlockTable
  /** Position of the first token. */
  readonly position: number
  readonly tokens: readonly number[]
  readonly outputs: Outputs
  readonly signal?: AbortSignal | undefined
  /** Logits of tokens[index], and which output of the step they are; the view is valid during the call only. */
  readonly onLogits: (index: number, logits: Float32Array, row: number) => void
  /** Whether the outputs' last hidden states are wanted too. Default false. */
  readonly wantsHidden?: boolean | undefined
  /** With `outputs` 'last', on an executor that has `best`. */
  readonly best?: BestWanted | undefined
  /** Tokens evaluated so far. */
  readonly onProgress?: ((done: number) => void) | undefined
}

interface Request extends EvaluateRequest {
  /** Tokens in published steps, and in completed ones. */
  scheduled: number
  done: number
  /** Ours, or whatever a callback of the request threw. */
  failure: { readonly error: unknown } | undefined
  readonly settle: (failure?: { readonly error: unknown }) => void
}

interface InFlight {
  readonly slot: StepSlot
  readonly parts: readonly { readonly request: Request; readonly pick: Pick }[]
  readonly outputs: number
  /** Best logits of each that are told; 0: all are. */
  readonly best: number
  /** When it was published, where steps are watched. */
  readonly begun: number | undefined
}

/** How many of the best logits are enough for all outputs of a step; 0 when somebody wants all. */
function bestOf(parts: InFlight['parts']): number {
  const counts = parts.map(({ request, pick }) => (pick.outputs > 0 ? (request.best?.count ?? Infinity) : 0))
  const most = Math.max(...counts)
  return most === Infinity ? 0 : most
}

/** What a call rejects with when its signal has fired. */
export function abortedBy(signal: AbortSignal): TandemError {
  return new TandemError('ERR_ABORTED', 'the evaluation was aborted', { cause: signal.reason })
}

/** See the file's header. */
export class StepLoop {
  readonly #executor: StepExecutor
  readonly #limits: Limits
  readonly #layout: StepLayout
  readonly #failureOf: ((step: number) => TandemError | undefined) | undefined
  readonly #watch = new StepWatch()
  #requests: Request[] = []
  readonly #inFlight: InFlight[] = []
  #running: Promise<void> | undefined

  /** `failureOf`: why the executor abandoned a step, by its sequence number, if nobody cancelled it. */
  constructor(executor: StepExecutor, limits: Limits, layout: StepLayout, failureOf?: (step: number) => TandemError | undefined) {
    this.#failureOf = failureOf
    this.#executor = executor
    this.#limits = limits
    this.#layout = layout
  }

  /**
   * Evaluates tokens. Rejects with `ERR_ABORTED`, `ERR_CLOSED`, the executor's failure or what a callback threw; the tokens evaluated
   * before that are told by `onProgress`. The caller's block table must have room and must not be changed meanwhile.
   */
  async evaluate(request: EvaluateRequest): Promise<void> {
    const { signal } = request
    if (signal?.aborted) throw abortedBy(signal)
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const settle: Request['settle'] = (failure) => (failure ? reject(failure.error) : resolve())
    const entry: Request = { ...request, scheduled: 0, done: 0, failure: undefined, settle }
    const onAbort = (): void => this.#abandon(entry, abortedBy(signal!))
    signal?.addEventListener('abort', onAbort, { once: true })
    this.#requests.push(entry)
    this.#running ??= this.#run()
    try {
      await promise
    } finally {
      signal?.removeEventListener('abort', onAbort)
    }
  }

  /** Fails the request of a table, if it is not done, as soon as none of its steps is in flight. */
  withdraw(table: BlockTable, error: unknown): void {
    const request = this.#requests.find((each) => each.table === table && each.done < each.tokens.length)
    if (request) this.#abandon(request, error)
  }

  /** Fails every request, now or when its step ends. Resolves when nothing is in flight. */
  async stop(error: TandemError): Promise<void> {
    for (const request of this.#requests) this.#abandon(request, error)
    await this.#running
  }

  /** Marks a request as failed and cancels the steps that only failed requests are in. It is settled when none of its steps is in flight. */
  #abandon(request: Request, error: unknown): void {
    request.failure ??= { error }
    for (const { slot, parts } of this.#inFlight) {
      if (parts.every((part) => part.request.failure)) this.#executor.cancel(slot)
    }
  }

  async #run(): Promise<void> {
    try {
      for (;;) {
        this.#settleIdle()
        // A turn of the event loop: everyone who got logits from the last step may ask for more before the next is put together.
        await new Promise((resolve) => setImmediate(resolve))
        this.#fill()
        const oldest = this.#inFlight[0]
        if (!oldest) {
          if (this.#requests.length === 0) return
          continue
        }
        const isDone = await this.#executor.whenCompleted(oldest.slot)
        this.#inFlight.shift()
        if (oldest.begun !== undefined) this.#tell(oldest, oldest.begun, isDone)
        this.#deliver(oldest, isDone)
      }
    } catch (error) {
      this.#failAll(TandemError.from(error))
    } finally {
      this.#running = undefined
    }
  }

  #failAll(error: TandemError): void {
    this.#inFlight.length = 0
    const requests = this.#requests
    this.#requests = []
    for (const request of requests) request.settle(request.failure ?? { error })
  }

  /** Settles requests that are finished or failed and in no step. */
  #settleIdle(): void {
    const busy = new Set(this.#inFlight.flatMap(({ parts }) => parts.map(({ request }) => request)))
    const isOver = (request: Request): boolean =>
      !busy.has(request) && (request.failure !== undefined || request.done === request.tokens.length)
    const over = this.#requests.filter(isOver)
    if (over.length === 0) return
    this.#requests = this.#requests.filter((request) => !isOver(request))
    for (const request of over) request.settle(request.failure)
  }

  /** Publishes steps while the ring has room and no logits of an earlier step are outstanding. */
  #fill(): void {
    while (this.#inFlight.every(({ outputs }) => outputs === 0)) {
      const candidates = this.#requests.filter((request) => !request.failure && request.scheduled < request.tokens.length)
      const pending = candidates.map(({ tokens, scheduled, outputs }) => ({ remaining: tokens.length - scheduled, outputs }))
      const picks = schedule(pending, this.#limits)
      if (picks.length === 0) return
      const slot = this.#executor.tryClaim()
      if (!slot) return
      this.#publish(
        slot,
        picks.map((pick) => ({ request: candidates[pick.request]!, pick })),
      )
    }
  }

  #publish(slot: StepSlot, parts: InFlight['parts']): void {
    const runs = parts.map(({ request, pick }) => ({
      table: request.table,
      position: request.position + request.scheduled,
      tokens: request.tokens.slice(request.scheduled, request.scheduled + pick.tokens),
      outputs: pick.outputs,
    }))
    const wantsHidden = parts.some(({ request }) => request.wantsHidden)
    const best = bestOf(parts)
    writeStep(slot.words, this.#layout, runs, { wantsHidden, best })
    for (const { request, pick } of parts) request.scheduled += pick.tokens
    const begun = this.#watch.begin()
    this.#executor.publish(slot)
    this.#inFlight.push({ slot, parts, outputs: parts.reduce((sum, { pick }) => sum + pick.outputs, 0), best, begun })
  }

  #tell({ slot, parts, outputs }: InFlight, begun: number, isDone: boolean): void {
    const tokens = parts.reduce((sum, { pick }) => sum + pick.tokens, 0)
    this.#watch.end({ step: slot.sequence, tokens, sequences: parts.length, outputs, ms: performance.now() - begun, isDone })
  }

  /** Gives a completed step's logits to its requests. */
  #deliver({ slot, parts, best }: InFlight, isDone: boolean): void {
    const reason = isDone ? undefined : (this.#failureOf?.(slot.sequence) ?? new TandemError('ERR_ABORTED', 'the step was abandoned'))
    let row = 0
    for (const { request, pick } of parts) {
      const first = row
      row += pick.outputs
      if (reason) request.failure ??= { error: reason }
      if (request.failure) continue
      const end = request.done + pick.tokens
      try {
        for (let output = 0; output < pick.outputs; output++) {
          const at = first + output
          if (best > 0) request.best!.onBest(this.#executor.best!(at, request.best!.count))
          else request.onLogits(end - pick.outputs + output, this.#executor.logits(at), at)
        }
        request.done = end
        request.onProgress?.(end)
      } catch (error) {
        request.failure = { error }
      }
    }
  }
}
