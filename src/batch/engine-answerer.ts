/** Answers from an engine in this process. */
import type { Engine } from '../engine/engine.ts'
import { TandemError } from '../errors.ts'
import type { Answerer, Outcome } from './answerer.ts'
import { type BatchTask, TASK_ERRORS } from './task.ts'

/** Options of the answers. */
export interface EngineAnswererOptions {
  /** Tasks that are worked on at a time. Default and most: the engine's `sequences`. */
  readonly maxConcurrency?: number | undefined
  /** Let tasks that begin alike share the cache: see `GenerateOptions`. Default true. */
  readonly sharePrefix?: boolean | undefined
}

/** See the file's header. Throws `ERR_ARGUMENT`. */
export class EngineAnswerer implements Answerer {
  readonly concurrency: number
  readonly #engine: Engine
  readonly #sharePrefix: boolean | undefined

  constructor(engine: Engine, { maxConcurrency, sharePrefix }: EngineAnswererOptions) {
    const { sequences } = engine.plan.limits
    const wanted = maxConcurrency ?? sequences
    if (!Number.isSafeInteger(wanted) || wanted < 1) {
      throw new TandemError('ERR_ARGUMENT', `maxConcurrency: must be a whole number from 1, not ${wanted}`)
    }
    this.concurrency = Math.min(wanted, sequences)
    this.#engine = engine
    this.#sharePrefix = sharePrefix
  }

  async answer(task: BatchTask, signal: AbortSignal, onTokens: (count: number) => void): Promise<Outcome> {
    const session = this.#engine.session()
    // one that began earlier goes first when the cache is full
    session.waitWhenFull()
    let text = ''
    try {
      for await (const delta of session.generate(task.prompt, { ...task.options, sharePrefix: this.#sharePrefix, signal })) {
        text += delta.text
        if (delta.token !== undefined) onTokens(1)
        if (!delta.finish) continue
        const { finishReason, promptTokens, reusedTokens, tokens } = delta.finish
        const finish = { finishReason, promptTokens, reusedTokens, tokens }
        return { text, finish, model: this.#engine.model.name, preemptions: session.preemptions }
      }
      throw new TandemError('ERR_INTERNAL', 'a generation ended without saying how')
    } catch (error) {
      const { code, message } = TandemError.from(error)
      if (!TASK_ERRORS.has(code)) throw error
      return { error: { code, message }, preemptions: session.preemptions }
    } finally {
      await session.close()
    }
  }
}
