/** Sizes a step record (`abi/step.ts`) for an engine's limits. */
import { KV_BLOCK_TOKENS } from '../abi/kernels.ts'
import { RUN_WORDS, STEP_HEADER_BYTES } from '../abi/step.ts'
import { Layout } from '../ring/arena.ts'
import type { Limits, StepLayout } from './types.ts'

/** Offsets of a step record for the given limits. */
export function stepLayout(limits: Pick<Limits, 'ubatch' | 'sequences' | 'outputs' | 'contextTokens'>): StepLayout {
  const blocksPerSequence = Math.ceil(limits.contextTokens / KV_BLOCK_TOKENS)
  const layout = new Layout(STEP_HEADER_BYTES)
  const tokenIds = layout.reserve(limits.ubatch * 4)
  const positions = layout.reserve(limits.ubatch * 4)
  const cacheRows = layout.reserve(limits.ubatch * 4)
  const outputs = layout.reserve(limits.outputs * 4)
  const runs = layout.reserve(limits.sequences * RUN_WORDS * 4)
  const blockTables = layout.reserve(limits.sequences * blocksPerSequence * 4)
  return { bytes: layout.bytes, tokenIds, positions, cacheRows, outputs, runs, blockTables, blocksPerSequence }
}
