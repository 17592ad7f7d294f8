/** The best logits without sorting all of them. */
import { TandemError } from '../errors.ts'

/** True when token `a` comes before token `b`: the larger logit, of equals the lower id. */
const isBetter = (logits: Float32Array, a: number, b: number): boolean => {
  const x = logits[a] as number
  const y = logits[b] as number
  return x > y || (x === y && a < b)
}

/**
 * Writes the ids of the best tokens into `ids`, best first, and returns how many there are: `ids.length` or all tokens, if fewer.
 * Tokens at -Infinity are left out. One pass over `logits: f32[vocabulary]` and a heap of `ids.length` entries, the worst on top.
 */
export function selectTop(logits: Float32Array, ids: Int32Array): number {
  const limit = ids.length
  if (limit === 0) return 0
  let count = 0
  let worst = -Infinity
  for (let id = 0; id < logits.length; id++) {
    const logit = logits[id] as number
    if (count === limit) {
      // Ids rise, so an equal logit never displaces one that is in already.
      if (logit <= worst) continue
      siftDown(logits, ids, limit, 0, id)
    } else {
      if (logit === -Infinity) continue
      siftUp(logits, ids, count++, id)
    }
    worst = logits[ids[0] as number] as number
  }
  // Taking the worst off again and again, from the back, leaves the best in front.
  for (let last = count - 1; last > 0; last--) {
    const id = ids[last] as number
    ids[last] = ids[0] as number
    siftDown(logits, ids, last, 0, id)
  }
  return count
}

function siftUp(logits: Float32Array, heap: Int32Array, hole: number, id: number): void {
  let i = hole
  while (i > 0) {
    const parent = (i - 1) >> 1
    const above = heap[parent] as number
    if (!isBetter(logits, above, id)) break
    heap[i] = above
    i = parent
  }
  heap[i] = id
}

function siftDown(logits: Float32Array, heap: Int32Array, length: number, hole: number, id: number): void {
  let i = hole
  for (;;) {
    let child = 2 * i + 1
    if (child >= length) break
    if (child + 1 < length && isBetter(logits, heap[child] as number, heap[child + 1] as number)) child++
    const below = heap[child] as number
    if (!isBetter(logits, id, below)) break
    heap[i] = below
    i = child
  }
  heap[i] = id
}

/**
 * The `n` best `[id, logit]` pairs of `logits: f32[vocabulary]`, best first, equals by id; tokens at -Infinity are left out.
 * Throws `ERR_ARGUMENT` when `n` is not a whole number, `ERR_NOT_FINITE` for NaN or +Infinity.
 */
export function topLogits(logits: Float32Array, n: number): [id: number, logit: number][] {
  if (!Number.isInteger(n) || n < 0) throw new TandemError('ERR_ARGUMENT', `n: must be a whole number from 0, not ${n}`)
  bestToken(logits)
  const ids = new Int32Array(Math.min(n, logits.length))
  return Array.from(ids.subarray(0, selectTop(logits, ids)), (id) => [id, logits[id] as number])
}

/**
 * The id of the largest logit, of equals the lowest; -1 when there is none above -Infinity.
 * Throws `ERR_NOT_FINITE` for NaN or +Infinity.
 */
export function bestToken(logits: Float32Array): number {
  let best = -1
  let largest = -Infinity
  for (let id = 0; id < logits.length; id++) {
    const logit = logits[id] as number
    // one comparison for almost all of them, which NaN does not pass either
    if (logit <= largest) continue
    if (!(logit > largest)) throw notFinite(id, logit)
    largest = logit
    best = id
  }
  if (largest === Infinity) throw notFinite(best, largest)
  return best
}

function notFinite(id: number, logit: number): TandemError {
  return new TandemError('ERR_NOT_FINITE', `the logit of token ${id} is ${logit}`)
}
