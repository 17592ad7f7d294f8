/**
 * Which tokens may be drawn: top-k, then top-p over what top-k left, then min-p. Each keeps the front of the list of tokens sorted by
 * logit, so all three together are one cut in that list, and nothing but the neighbourhood of the cut needs sorting.
 */
import { selectTop } from './top-logits.ts'

/** What the filters need to know; `SamplingOptions` says what they mean. */
export interface FilterOptions {
  readonly topK: number
  readonly topP: number
  readonly minP: number
}

/** The filters with their buffers. */
export interface Filters {
  /**
   * Finds the tokens that pass for `logits: f32[vocabulary]`, of which `largest` (finite) is the maximum. The ids lie in the result
   * until the next call, in an order that depends on nothing but the logits. Never empty.
   */
  apply(logits: Float32Array, largest: number): Int32Array
  /** The same where top-k has been done: `logits: f32[topK or more]`, best first, are what it left. What passes is told by index, from 0 on. */
  applySorted(logits: Float32Array): Int32Array
}

/** Top-p without top-k finds its cut in a histogram of the logits: this many buckets for each unit of logit, */
const BUCKETS_PER_UNIT = 64
/** from the largest logit down; what is further down (a probability of e^-32 of the largest) shares the last bucket. */
const BUCKETS = 32 * BUCKETS_PER_UNIT

/** Filters for one sampler. Allocates when the vocabulary's size changes, at no other time but for the views it returns. */
export function createFilters({ topK, topP, minP }: FilterOptions): Filters {
  let ids = new Int32Array(0)
  let values = new Float32Array(0)
  let indexes = new Int32Array(0)
  const masses = new Float64Array(BUCKETS)
  const logMinP = minP > 0 ? Math.log(minP) : -Infinity

  return {
    apply(logits, largest) {
      if (ids.length !== logits.length) ids = new Int32Array(logits.length)
      if (topK > 0 && topK < logits.length) {
        const top = ids.subarray(0, topK)
        const count = selectTop(logits, top)
        return trim(logits, largest, top, count)
      }
      const floor = largest + logMinP
      return ids.subarray(0, topP < 1 ? keepMass(logits, largest, floor) : keepFrom(logits, floor, Infinity))
    },
    applySorted(logits) {
      if (indexes.length !== topK) indexes = Int32Array.from({ length: topK }, (_, index) => index)
      let count = topK
      while (count > 1 && logits[count - 1] === -Infinity) count--
      return trim(logits, logits[0] as number, indexes, count)
    },
  }

  /** What top-p and min-p leave of the first `count` of `sorted`, the ids of the best logits. */
  function trim(logits: Float32Array, largest: number, sorted: Int32Array, count: number): Int32Array {
    const mass = topP < 1 ? topP * massOf(logits, largest, sorted, count) : Infinity
    return sorted.subarray(0, cut(logits, largest, sorted, count, largest + logMinP, mass))
  }

  /** Puts the tokens with a logit of at least `floor` into `ids`, of those equal to it only the first `ties`. Returns how many. */
  function keepFrom(logits: Float32Array, floor: number, ties: number): number {
    let count = 0
    let left = ties
    for (let id = 0; id < logits.length; id++) {
      const logit = logits[id] as number
      if (logit < floor || logit === -Infinity) continue
      if (logit === floor && left-- <= 0) continue
      ids[count++] = id
    }
    return count
  }

  /** Top-p and min-p's floor. Only the bucket that the cut goes through is sorted, and only its logits, which the engine does natively. */
  function keepMass(logits: Float32Array, largest: number, floor: number): number {
    if (values.length !== logits.length) values = new Float32Array(logits.length)
    masses.fill(0)
    let total = 0
    for (let id = 0; id < logits.length; id++) {
      const below = largest - (logits[id] as number)
      const weight = Math.exp(-below)
      masses[bucketOf(below)] = (masses[bucketOf(below)] as number) + weight
      total += weight
    }
    const mass = topP * total
    let sum = 0
    let bucket = 0
    while (bucket < BUCKETS - 1 && sum + (masses[bucket] as number) < mass) sum += masses[bucket++] as number

    let count = 0
    for (let id = 0; id < logits.length; id++) {
      const logit = logits[id] as number
      if (bucketOf(largest - logit) === bucket) values[count++] = logit
    }
    // Rounding can leave the walk at the end with nothing to sort: then no token is superfluous.
    if (count === 0) return keepFrom(logits, floor, Infinity)
    const sorted = values.subarray(0, count).sort()
    let last = count
    while (last > 0 && (sum < mass || last === count)) sum += Math.exp((sorted[--last] as number) - largest)
    const smallest = sorted[last] as number
    if (smallest < floor) return keepFrom(logits, floor, Infinity)
    let ties = 1
    while (sorted[last + ties] === smallest) ties++
    return keepFrom(logits, smallest, ties)
  }
}

/** The bucket of a logit that is `below` the largest. The same expression everywhere, so that a logit is never between two. */
const bucketOf = (below: number): number => (below < BUCKETS / BUCKETS_PER_UNIT ? Math.floor(below * BUCKETS_PER_UNIT) : BUCKETS - 1)

/** Sum of the probabilities of the first `count` of `ids`, in units of the most likely token's. */
function massOf(logits: Float32Array, largest: number, ids: Int32Array, count: number): number {
  let sum = 0
  for (let i = 0; i < count; i++) sum += Math.exp((logits[ids[i] as number] as number) - largest)
  return sum
}

/** How many of the `count` sorted `ids` are at `floor` or above and needed to reach `mass`. At least one. */
function cut(logits: Float32Array, largest: number, ids: Int32Array, count: number, floor: number, mass: number): number {
  let sum = 0
  for (let i = 0; i < count; i++) {
    const logit = logits[ids[i] as number] as number
    if (i > 0 && logit < floor) return i
    sum += Math.exp(logit - largest)
    if (sum >= mass) return i + 1
  }
  return count
}
