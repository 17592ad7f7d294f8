import { TandemError } from '../errors.ts'
import { bestToken } from './top-logits.ts'

/**
 * The natural logarithm of token `id`'s probability under `logits: f32[vocabulary]`, summed in float64 below the largest logit.
 * Throws `ERR_TOKEN_RANGE` for an id outside, `ERR_NOT_FINITE` for NaN, +Infinity or nothing but -Infinity.
 */
export function logSoftmaxAt(logits: Float32Array, id: number): number {
  const logit = logits[id]
  if (logit === undefined) throw new TandemError('ERR_TOKEN_RANGE', `token id ${id} is not in the vocabulary of ${logits.length} tokens`)
  const best = bestToken(logits)
  const largest = logits[best]
  if (largest === undefined) throw new TandemError('ERR_NOT_FINITE', 'no token has a logit above -Infinity')
  let sum = 0
  for (let i = 0; i < logits.length; i++) sum += Math.exp((logits[i] as number) - largest)
  return logit - largest - Math.log(sum)
}
