/**
 * Choosing the next token.
 *
 * The steps run in the order of llama.cpp's default chain (`samplers` in its `common/common.h`): repetition penalty, top-k, top-p,
 * min-p, temperature. Temperature comes last: it does not change which tokens pass the filters, only how evenly they are drawn.
 */
import type { BestLogits } from '../abi/step.ts'
import { TandemError } from '../errors.ts'
import { createFilters } from './filters.ts'
import { resolveSampling } from './options.ts'
import type { SamplingOptions } from './options.ts'
import { createRandom } from './random.ts'
import { createRepetitionPenalty } from './repetition-penalty.ts'
import { bestToken } from './top-logits.ts'

/** Chooses tokens, one after the other, for one sequence. */
export interface Sampler {
  /** The seed in use: the same seed, options and logits give the same tokens, on any machine. */
  readonly seed: number
  /** How many of the best logits `sample` can choose from instead of all, if there are more: the token is the same. Infinity: it needs all. */
  readonly needs: number
  /**
   * The next token for `logits: f32[vocabulary]`, which are not changed, or for the best `needs` of them or more; -Infinity rules a token out.
   * `history` is the sequence so far, prompt included. Allocates no arrays once it has seen the vocabulary's size.
   * Throws `ERR_NOT_FINITE` when a logit is NaN or +Infinity or all are -Infinity, `ERR_TOKEN_RANGE` for a history token without a logit,
   * `ERR_ARGUMENT` for fewer logits than it needs.
   */
  sample(logits: Float32Array | BestLogits, history: readonly number[]): number
}

/** A penalty may lift any token above those that come first without it, and without top-k every token may be drawn. */
function neededLogits(temperature: number, topK: number, penalty: number): number {
  if (penalty !== 1) return Infinity
  if (temperature === 0) return 1
  return topK > 0 ? topK : Infinity
}

/** A sampler. Throws `ERR_ARGUMENT` naming the option that is out of range. */
export function createSampler(options: SamplingOptions = {}): Sampler {
  const { temperature, repetitionPenalty, repetitionWindow, seed, ...filterOptions } = resolveSampling(options)
  const random = createRandom(seed)
  const penalise = createRepetitionPenalty(repetitionPenalty, repetitionWindow)
  const filters = createFilters(filterOptions)
  const needs = neededLogits(temperature, filterOptions.topK, repetitionWindow > 0 ? repetitionPenalty : 1)
  let sums = new Float64Array(0)

  /** One of `ids` by its share of the probability at this temperature. */
  const draw = (logits: Float32Array, largest: number, ids: Int32Array): number => {
    let sum = 0
    for (let i = 0; i < ids.length; i++) {
      sum += Math.exp(((logits[ids[i] as number] as number) - largest) / temperature)
      sums[i] = sum
    }
    const target = random() * sum
    let low = 0
    for (let high = ids.length - 1; low < high;) {
      const middle = (low + high) >> 1
      if ((sums[middle] as number) > target) high = middle
      else low = middle + 1
    }
    return ids[low] as number
  }

  /** The index of the chosen one of `logits`; with `isSorted` they are the best, best first. */
  const choose = (logits: Float32Array, isSorted: boolean): number => {
    const best = bestToken(logits)
    if (best < 0) throw new TandemError('ERR_NOT_FINITE', 'no token has a logit above -Infinity')
    if (temperature === 0) return best
    if (sums.length < logits.length) sums = new Float64Array(logits.length)
    const largest = logits[best] as number
    return draw(logits, largest, isSorted ? filters.applySorted(logits) : filters.apply(logits, largest))
  }

  return {
    seed,
    needs,
    sample(given, history) {
      if (given instanceof Float32Array) return choose(penalise(given, history), false)
      const { ids, logits } = given
      if (logits.length < needs) throw new TandemError('ERR_ARGUMENT', `the best ${logits.length} logits are too few for this sampler`)
      return ids[choose(logits, true)] as number
    },
  }
}
