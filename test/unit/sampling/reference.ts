/** Sampling as its definitions say, in float64 and with full sorts: slow and obvious. */
import type { SamplingOptions } from '../../../src/sampling/options.ts'

/** The probability of every token: penalty, top-k, top-p, min-p, temperature (above 0). */
export function referenceDistribution(given: Float32Array, history: readonly number[], options: SamplingOptions): number[] {
  const { temperature = 1, topK = 0, topP = 1, minP = 0, repetitionPenalty = 1, repetitionWindow = 64 } = options
  const recent = new Set(repetitionWindow === 0 ? [] : history.slice(-repetitionWindow))
  const logits = Array.from(given, (logit, id) =>
    recent.has(id) ? Math.fround(logit > 0 ? logit / repetitionPenalty : logit * repetitionPenalty) : logit,
  )
  let kept = logits
    .map((logit, id) => ({ logit, id }))
    .filter(({ logit }) => logit > -Infinity)
    .sort((a, b) => b.logit - a.logit || a.id - b.id)
  const largest = kept[0]!.logit
  if (topK > 0) kept = kept.slice(0, topK)
  if (topP < 1) {
    const total = kept.reduce((sum, { logit }) => sum + Math.exp(logit - largest), 0)
    let reached = 0
    const enough = kept.findIndex(({ logit }) => (reached += Math.exp(logit - largest) / total) >= topP)
    if (enough >= 0) kept = kept.slice(0, enough + 1)
  }
  if (minP > 0) kept = kept.filter(({ logit }) => logit >= largest + Math.log(minP))
  const weights = Array.from(given, () => 0)
  for (const { logit, id } of kept) weights[id] = Math.exp((logit - largest) / temperature)
  const sum = weights.reduce((a, b) => a + b)
  return weights.map((weight) => weight / sum)
}
