/**
 * The scheduler: which tokens of which requests go into the next step. Pure.
 *
 * Requests with one token left (somebody decoding) go first, so that a long prompt never stalls a stream; what is left of the step is filled
 * with prompt tokens in order of arrival. The oldest prompt always gets a token, or streams that fill every step would keep it waiting for
 * ever. A step has at most `ubatch` tokens and `outputs` positions whose logits are read.
 */

/** Which logits a request wants: none but of its last token, or of every token. */
export type Outputs = 'last' | 'all'

/** A request as the scheduler sees it. */
export interface Pending {
  /** Tokens not yet in any step. */
  readonly remaining: number
  readonly outputs: Outputs
}

/** A request's part in a step: its next `tokens` tokens, the last `outputs` of them with logits. */
export interface Pick {
  readonly request: number
  readonly tokens: number
  readonly outputs: number
}

/** Limits of a step. */
export interface StepLimits {
  readonly ubatch: number
  readonly outputs: number
}

/** Picks for one step; empty when nothing is pending. `pending` is in order of arrival. */
export function schedule(pending: readonly Pending[], limits: StepLimits): Pick[] {
  const picks: Pick[] = []
  const [oldest] = pending
  // what the oldest prompt needs for its one token is kept back from those who go first
  const keptTokens = oldest && oldest.remaining > 1 ? 1 : 0
  const keptOutputs = oldest?.outputs === 'all' ? keptTokens : 0
  let ubatch = limits.ubatch - keptTokens
  let outputs = limits.outputs - keptOutputs
  const take = (request: number): void => {
    const { remaining, outputs: wanted } = pending[request]!
    let tokens = Math.min(remaining, ubatch)
    if (wanted === 'all') tokens = Math.min(tokens, outputs)
    else if (tokens === remaining && outputs === 0) tokens -= 1
    if (tokens <= 0) return
    const count = wanted === 'all' ? tokens : tokens === remaining ? 1 : 0
    picks.push({ request, tokens, outputs: count })
    ubatch -= tokens
    outputs -= count
  }
  pending.forEach(({ remaining }, request) => void (remaining === 1 && take(request)))
  ubatch += keptTokens
  outputs += keptOutputs
  pending.forEach(({ remaining }, request) => void (remaining > 1 && take(request)))
  return picks
}
