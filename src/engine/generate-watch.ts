/** Tells of generations, where a program listens or a person debugs. */
import { type OperationChannels, operationChannels } from '../diagnostics/channels.ts'
import { debugLog, msSince } from '../diagnostics/debug.ts'
import { TandemError } from '../errors.ts'
import type { Delta, Finish } from './generate.ts'

/** A generation: a message of the channels `tracing:tandem:generate:*`, filled in as it goes on. */
export interface GenerateMessage {
  /** The model's name. */
  readonly model: string
  /** When it has ended by itself; absent when it failed, or when nobody wanted the rest. */
  finish?: Finish
  /** Why it failed. */
  error?: unknown
}

const channels: OperationChannels<GenerateMessage> = operationChannels('tandem:generate')
const debug = debugLog('engine')

/** The same deltas. Costs nothing while nobody wants to know. */
export function watched(deltas: AsyncGenerator<Delta, void, undefined>, model: string): AsyncGenerator<Delta, void, undefined> {
  return channels.hasSubscribers || debug ? watch(deltas, { model }) : deltas
}

async function* watch(deltas: AsyncGenerator<Delta, void, undefined>, message: GenerateMessage): AsyncGenerator<Delta, void, undefined> {
  const begun = performance.now()
  channels.start.publish(message)
  channels.end.publish(message)
  try {
    for await (const delta of deltas) {
      if (delta.finish) message.finish = delta.finish
      yield delta
    }
  } catch (error) {
    message.error = error
    channels.error.publish(message)
    throw error
  } finally {
    channels.asyncStart.publish(message)
    channels.asyncEnd.publish(message)
    debug?.(`generation ${outcomeOf(message)}, ${msSince(begun)}`)
  }
}

function outcomeOf({ finish, error }: GenerateMessage): string {
  if (error !== undefined) return `failed: ${TandemError.from(error).code}`
  if (!finish) return 'left before its end'
  const { finishReason, promptTokens, reusedTokens, tokens, timings } = finish
  const speeds = `${timings.promptTokensPerSecond.toFixed(1)} and ${timings.tokensPerSecond.toFixed(1)} tokens/s`
  return `ended (${finishReason}): prompt ${promptTokens} tokens, ${reusedTokens} of them in the cache, answer ${tokens}; ${speeds}`
}
