/** Axes that begin at zero, with round numbers at their ticks. Pure. */

/** An axis from 0 to `end`. */
export interface Axis {
  readonly end: number
  readonly ticks: readonly number[]
}

/** Rounding of `3 * 0.1`. */
const clean = (value: number): number => Number(value.toPrecision(12))

const stepsUpTo = (end: number, step: number): number[] =>
  Array.from({ length: Math.floor(end / step + 1e-9) + 1 }, (_, index) => clean(index * step))

/** The smallest of 1, 2, 5, 10, 20, ... (or 0.5, 0.2, ...) that is at least `least`. */
function roundStep(least: number): number {
  const power = 10 ** Math.floor(Math.log10(least))
  return clean(([1, 2, 5].find((digit) => digit * power >= least * (1 - 1e-9)) ?? 10) * power)
}

/** Ends at the tick at or above `max`, with at most `count` steps. */
export function valueAxis(max: number, count = 6): Axis {
  const step = roundStep((max > 0 ? max : 1) / count)
  const end = clean(Math.ceil((max > 0 ? max : 1) / step - 1e-9) * step)
  return { end, ticks: stepsUpTo(end, step) }
}

/** Depths of a cache: ends at the deepest, with steps that are powers of two where the depths are multiples of one, as they mostly are. */
export function depthAxis(depths: readonly number[], alone: number, count = 6): Axis {
  const deepest = Math.max(...depths)
  // a single row, at 0
  const end = deepest > 0 ? deepest : alone
  const isBinary = [...depths, end].every((depth) => depth % 64 === 0)
  const step = isBinary ? 2 ** Math.ceil(Math.log2(end / count)) : Math.max(1, roundStep(end / count))
  return { end, ticks: stepsUpTo(end, step) }
}
