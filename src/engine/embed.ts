/** Embeddings: one vector for a text, pooled over the model's last hidden states. */
import { TandemError } from '../errors.ts'
import type { Tokenizer } from '../text/tokenizer.ts'
import type { SequenceState } from './session.ts'

/** How the hidden states of a text's tokens become one vector. */
export type Pooling = 'mean' | 'last'

/** Options of `Engine.embed`. */
export interface EmbedOptions {
  /** `mean` of all tokens' states, or the state of the `last` one, which has seen all others. Default `mean`. */
  readonly pooling?: Pooling | undefined
  /** Scale every vector to length 1, so that a dot product is a cosine. Default true. */
  readonly normalize?: boolean | undefined
  readonly signal?: AbortSignal | undefined
  /** Texts embedded so far, and in all. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined
}

/** What embedding needs of an engine. */
interface EmbedHost {
  session(): SequenceState
  /** A function: a model without vocabulary can still embed token ids. */
  tokenizer(): Tokenizer
}

/** Throws `ERR_ARGUMENT`. */
function checkPooling(pooling: unknown): asserts pooling is Pooling {
  if (pooling === 'mean' || pooling === 'last') return
  throw new TandemError('ERR_ARGUMENT', `pooling must be 'mean' or 'last', not '${String(pooling)}'`)
}

/** Scales a vector to length 1; one of zeros stays as it is. */
function normalized(vector: Float64Array): Float64Array {
  const length = Math.hypot(...vector)
  return length > 0 ? vector.map((value) => value / length) : vector
}

/** f32[hidden] of a text's tokens. Sums are in float64, so that the order of pieces does not matter. */
async function embedTokens(
  session: SequenceState,
  tokens: readonly number[],
  hidden: number,
  { pooling = 'mean', normalize = true, signal }: EmbedOptions,
): Promise<Float32Array> {
  const sum = new Float64Array(hidden)
  const add = (_index: number, state: Float32Array): void => {
    for (let column = 0; column < hidden; column++) sum[column]! += state[column]!
  }
  await session.hiddenStates(tokens, pooling === 'mean' ? 'all' : 'last', add, { signal })
  const pooled = pooling === 'mean' ? sum.map((value) => value / tokens.length) : sum
  return Float32Array.from(normalize ? normalized(pooled) : pooled)
}

/** Embeds texts, `lanes` at a time. Errors as of `Engine.embed`. */
export async function embedTexts(
  host: EmbedHost,
  texts: readonly (string | readonly number[])[],
  hidden: number,
  lanes: number,
  options: EmbedOptions,
): Promise<Float32Array[]> {
  const { pooling = 'mean', onProgress } = options
  checkPooling(pooling)
  const inputs = texts.map((text, index) => {
    const tokens = typeof text === 'string' ? host.tokenizer().encode(text) : text
    if (tokens.length === 0) throw new TandemError('ERR_ARGUMENT', `text ${index} has no tokens to embed`)
    return tokens
  })
  const vectors: Float32Array[] = Array.from({ length: inputs.length })
  let next = 0
  let done = 0
  const lane = async (): Promise<void> => {
    const session = host.session()
    session.waitWhenFull()
    try {
      while (next < inputs.length) {
        const index = next++
        vectors[index] = await embedTokens(session, inputs[index]!, hidden, options)
        onProgress?.(++done, inputs.length)
      }
    } finally {
      // the other lanes shall begin nothing new behind a failure
      next = inputs.length
      await session.close()
    }
  }
  // all of them end before a failure is told: none is left at work behind it
  const ends = await Promise.allSettled(Array.from({ length: Math.min(lanes, inputs.length) }, lane))
  for (const end of ends) if (end.status === 'rejected') throw end.reason
  return vectors
}
