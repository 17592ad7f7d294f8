/** Generation: prompt in, an async iterable of text deltas out. Leaving the loop stops the work. */
import { TandemError } from '../errors.ts'
import { createSampler } from '../sampling/sampler.ts'
import type { SamplingOptions } from '../sampling/options.ts'
import type { ChatMessage, ChatTemplate } from '../text/chat-template.ts'
import { createDetokenizer } from '../text/detokenizer.ts'
import { createStopMatcher } from '../text/stop.ts'
import type { Tokenizer } from '../text/tokenizer.ts'
import type { SequenceState } from './session.ts'

/** Text, a conversation, or token ids. */
export type Prompt = string | readonly ChatMessage[] | readonly number[]

/** Options of a generation; sampling options are greedy by default. */
export interface GenerateOptions extends SamplingOptions {
  /** Stop after this many tokens. Default: until the model ends its answer or the context is full. */
  readonly maxTokens?: number | undefined
  /** Stop before any of these texts; they are not part of the answer. Default none. */
  readonly stop?: string | readonly string[] | undefined
  /** Take a string prompt as it is, control tokens in it recognised, instead of as a user's message in the chat template. Default false. */
  readonly raw?: boolean | undefined
  /** Share the cache's blocks with sequences that begin alike: see `EvaluateOptions`. Default true. */
  readonly sharePrefix?: boolean | undefined
  readonly signal?: AbortSignal | undefined
  /** Prompt tokens evaluated so far, and in all (those reused from the cache left out). */
  readonly onPrefill?: ((done: number, total: number) => void) | undefined
}

/** `stop`: the model ended its answer, or a stop text came. `length`: `maxTokens` or the context's end was reached. */
export type FinishReason = 'stop' | 'length'

/** How long a generation took. */
export interface Timings {
  readonly promptMs: number
  readonly generateMs: number
  readonly promptTokensPerSecond: number
  readonly tokensPerSecond: number
}

/** What is known when a generation has ended. */
export interface Finish {
  readonly finishReason: FinishReason
  readonly promptTokens: number
  /** Prompt tokens that were in the cache, this session's or another's. */
  readonly reusedTokens: number
  /** Tokens generated, the one that ended the answer left out. */
  readonly tokens: number
  readonly seed: number
  readonly timings: Timings
}

/** One step of a generation. The last one has `finish` and whatever text was held back. */
export interface Delta {
  /** May be empty: half a character, or what may yet become a stop text, is held back. */
  readonly text: string
  /** The token that was generated in this step, if any. */
  readonly token?: number
  readonly finish?: Finish
}

/** What generation needs besides a sequence. Getters: a model without vocabulary can still be run on token ids. */
export interface TextTools {
  readonly tokenizer: Tokenizer
  readonly chatTemplate: ChatTemplate | undefined
}

/** True of an empty array too. */
const isTokens = (prompt: Prompt): prompt is readonly number[] => typeof prompt !== 'string' && typeof prompt[0] !== 'object'

/** Token ids of a prompt. Throws `ERR_TEMPLATE`, `ERR_ARGUMENT`. */
export function promptTokens(text: TextTools, prompt: Prompt, raw: boolean): readonly number[] {
  if (isTokens(prompt)) return prompt
  const { tokenizer, chatTemplate } = text
  if (typeof prompt === 'string' && (raw || !chatTemplate)) return tokenizer.encode(prompt, { parseSpecial: raw })
  if (!chatTemplate) throw new TandemError('ERR_TEMPLATE', 'the model file has no chat template: pass the prompt as text')
  const messages = typeof prompt === 'string' ? [{ role: 'user', content: prompt }] : prompt
  // the template writes the begin token itself where the model wants one
  return tokenizer.encode(chatTemplate.render(messages), { addSpecial: false, parseSpecial: true })
}

function maxTokensOf(value: number | undefined): number {
  if (value === undefined) return Infinity
  if (Number.isInteger(value) && value >= 0) return value
  throw new TandemError('ERR_ARGUMENT', `maxTokens must be a whole number from 0, not ${value}`)
}

const perSecond = (count: number, ms: number): number => (ms > 0 ? (count * 1000) / ms : 0)

/** Generates on a sequence. Errors as of `sync`, and `ERR_TEMPLATE`, `ERR_ARGUMENT`, `ERR_NOT_FINITE`. */
export async function* generate(
  sequence: SequenceState,
  text: TextTools,
  prompt: Prompt,
  options: GenerateOptions = {},
): AsyncGenerator<Delta, void, undefined> {
  const { stop = [], raw = false, sharePrefix = true, signal, onPrefill, maxTokens, ...sampling } = options
  const sampler = createSampler(sampling)
  const limit = maxTokensOf(maxTokens)
  const stops = createStopMatcher(typeof stop === 'string' ? [stop] : stop)
  const tokens = promptTokens(text, prompt, raw)
  if (tokens.length === 0) throw new TandemError('ERR_ARGUMENT', 'the prompt is empty')
  const { tokenizer } = text
  const detokenizer = createDetokenizer(tokenizer, { continuation: true })

  const start = performance.now()
  let evaluated = 0
  const onProgress = (done: number, total: number): void => {
    evaluated = total
    onPrefill?.(done, total)
  }
  let logits = await sequence.syncBest(tokens, sampler.needs, { signal, sharePrefix, onProgress })
  const decodeStart = performance.now()
  let count = 0

  const finish = (finishReason: FinishReason): Finish => {
    const promptMs = decodeStart - start
    const generateMs = performance.now() - decodeStart
    const timings = {
      promptMs,
      generateMs,
      promptTokensPerSecond: perSecond(evaluated, promptMs),
      tokensPerSecond: perSecond(count, generateMs),
    }
    return {
      finishReason,
      promptTokens: tokens.length,
      reusedTokens: tokens.length - evaluated,
      tokens: count,
      seed: sampler.seed,
      timings,
    }
  }

  while (count < limit) {
    const token = sampler.sample(logits, sequence.tokens)
    if (tokenizer.endOfGeneration.has(token)) {
      yield* last(stops.push(detokenizer.flush()), () => finish('stop'))
      return
    }
    count++
    const { text: delta, stopped } = stops.push(detokenizer.push(token))
    if (stopped) {
      yield { text: delta, token, finish: finish('stop') }
      return
    }
    yield { text: delta, token }
    if (count >= limit || sequence.tokens.length >= sequence.contextTokens) break
    logits = await sequence.decodeBest(token, sampler.needs, { signal, sharePrefix })
  }
  yield* last(stops.push(detokenizer.flush()), () => finish('length'))

  /** Ends the stream with what was held back, unless that completes a stop text. */
  function* last(pushed: { text: string; stopped: boolean }, end: () => Finish): Generator<Delta> {
    const rest = pushed.stopped ? '' : stops.flush()
    const finished = end()
    yield { text: pushed.text + rest, finish: pushed.stopped ? { ...finished, finishReason: 'stop' } : finished }
  }
}
