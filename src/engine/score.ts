/** Scores: how likely a text is as the continuation of another. */
import { TandemError } from '../errors.ts'
import { logSoftmaxAt } from '../sampling/log-softmax.ts'
import { type Prompt, promptTokens, type TextTools } from './generate.ts'
import type { SequenceState } from './session.ts'

/** Text, taken as it is, or token ids. */
export type Continuation = string | readonly number[]

/** Options of a score. */
export interface ScoreOptions {
  /** As in `GenerateOptions`, of the prompt. Default false. */
  readonly raw?: boolean | undefined
  /** As in `GenerateOptions`. Default true. */
  readonly sharePrefix?: boolean | undefined
  readonly signal?: AbortSignal | undefined
}

/** How likely a continuation is. */
export interface Score {
  /** Sum of its tokens' log probabilities, nats. */
  readonly logProbability: number
  /** The same per token, which compares texts of different lengths. */
  readonly perToken: number
  /** f64[tokens]: the log probability of each token after the prompt and the tokens before it. */
  readonly tokens: Float64Array
}

/** Scores a continuation on a sequence, which then holds the prompt and all of the continuation but its last token. */
export async function score(
  sequence: SequenceState,
  text: TextTools,
  prompt: Prompt,
  continuation: Continuation,
  { raw = false, sharePrefix = true, signal }: ScoreOptions = {},
): Promise<Score> {
  const before = promptTokens(text, prompt, raw)
  const after = typeof continuation === 'string' ? text.tokenizer.encode(continuation, { addSpecial: false }) : [...continuation]
  if (before.length === 0) throw new TandemError('ERR_ARGUMENT', 'the prompt is empty')
  if (after.length === 0) throw new TandemError('ERR_ARGUMENT', 'there is nothing to score: the continuation is empty')
  const tokens = new Float64Array(after.length)
  tokens[0] = logSoftmaxAt(await sequence.sync(before, { signal, sharePrefix }), after[0]!)
  // the logits behind the last token are nobody's
  const visit = (index: number, logits: Float32Array): void => void (tokens[index + 1] = logSoftmaxAt(logits, after[index + 1]!))
  await sequence.extend(after.slice(0, -1), visit, { signal })
  const logProbability = tokens.reduce((sum, each) => sum + each, 0)
  return { logProbability, perToken: logProbability / after.length, tokens }
}
