/** How perplexity cuts a text into windows. Pure. */

/** Tokens to evaluate from scratch. Token i + 1 is scored by the logits after token i, so the first is never scored. */
export type Window = readonly number[]

/**
 * Cuts `tokens` into consecutive windows of at most `contextTokens`, every token in one of them. With `bos` each begins with it, and then all
 * of its text is scored. A last window with nothing to score is left out.
 */
export function windowsOf(tokens: readonly number[], contextTokens: number, bos: number | undefined): Window[] {
  const head = bos === undefined ? [] : [bos]
  const step = contextTokens - head.length
  const windows: Window[] = []
  if (step < 1) return windows
  for (let begin = 0; begin < tokens.length; begin += step) windows.push([...head, ...tokens.slice(begin, begin + step)])
  return windows.filter((window) => window.length > 1)
}
