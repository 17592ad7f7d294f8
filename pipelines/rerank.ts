/** Everything on the WASM pool, and what a list of texts is scored and ordered with: how likely each is as the answer to a query. */
import type { Prompt } from '../src/engine/generate.ts'
import type { Score, ScoreOptions } from '../src/engine/score.ts'
import { definePipeline } from '../src/pipeline/define.ts'

/** What `rerank` needs of an engine. */
interface Scorer {
  score(prompt: Prompt, continuations: readonly string[], options?: ScoreOptions): Promise<Score[]>
}

/** A text with its place in the list that it comes from. */
export interface Ranked {
  readonly text: string
  readonly index: number
  readonly score: Score
}

/** The texts, the likeliest first, per token so that short ones are not favoured. The query is evaluated once for all of them. */
export async function rerank(engine: Scorer, query: Prompt, texts: readonly string[], options: ScoreOptions = {}): Promise<Ranked[]> {
  const scores = await engine.score(query, texts, options)
  const ranked = texts.map((text, index) => ({ text, index, score: scores[index]! }))
  return ranked.sort((a, b) => b.score.perToken - a.score.perToken || a.index - b.index)
}

// one step in flight is enough: a score waits for the logits of every step
export default definePipeline({ name: 'rerank', executor: 'wasm', ringDepth: 1 })
