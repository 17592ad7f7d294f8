/** Everything on the WASM pool, and an observer behind every router that counts how often each expert was chosen. */
import { definePipeline } from '../src/pipeline/define.ts'
import type { UserStageContext, UserStageOptions, UserStageView } from '../src/pipeline/user-stage.ts'

/** The observer: i32[experts], how many of the step's tokens chose each expert of the layer. */
export function countExperts({ expertIds }: UserStageView<'after router'>, { shape }: UserStageContext): Int32Array {
  const counts = new Int32Array(shape.experts)
  for (const expert of expertIds) counts[expert]!++
  return counts
}

/** How evenly the experts of a layer were used. */
export interface ExpertUse {
  readonly layer: number
  /** i32[experts]: how often each was chosen. */
  readonly counts: Int32Array
  /** The most used expert's share over an even one: 1 is perfect balance, `experts / expertsUsed` the worst there can be. */
  readonly imbalance: number
  readonly unused: number
}

/** Adds up what `engine.userStage<Int32Array>('experts').collect()` gives, by layer. */
export function expertUse(results: readonly { readonly layer: number | undefined; readonly value: Int32Array }[]): ExpertUse[] {
  const layers = new Map<number, Int32Array>()
  for (const { layer = -1, value } of results) {
    const sum = layers.get(layer) ?? new Int32Array(value.length)
    value.forEach((count, expert) => (sum[expert]! += count))
    layers.set(layer, sum)
  }
  return [...layers].map(([layer, counts]) => {
    const mean = counts.reduce((sum, count) => sum + count, 0) / counts.length
    return { layer, counts, imbalance: Math.max(...counts) / mean, unused: counts.filter((count) => count === 0).length }
  })
}

/** The user stage, for any pipeline. Nothing may be left out of a count, and counting is quicker than computing. */
export const userStages: readonly UserStageOptions[] = [
  { name: 'experts', after: 'router', module: import.meta.url, export: 'countExperts', whenFull: 'wait' },
]

export default definePipeline({ name: 'router-statistics', executor: 'wasm', userStages })
