/** Writes a step record into a ring slot: see `abi/step.ts` for the layout. */
import { RUN_WORDS, STEP_HEADER } from '../abi/step.ts'
import type { StepLayout } from '../placement/types.ts'
import { type BlockTable, cacheRow } from './kv-blocks.ts'

/** Consecutive tokens of one sequence in a step. */
export interface Run {
  readonly table: BlockTable
  /** Position of the first token. */
  readonly position: number
  readonly tokens: readonly number[]
  /** How many of the last tokens have their logits read. */
  readonly outputs: number
}

/** What is wanted of a step's outputs. */
export interface WantedOfStep {
  /** Their last hidden states, beside the logits. */
  readonly wantsHidden: boolean
  /** How many of their best logits are enough; 0 when all are wanted. */
  readonly best: number
}

/** Fills the record; outputs are numbered in order of the runs. */
export function writeStep(
  words: Int32Array<SharedArrayBuffer>,
  layout: StepLayout,
  runs: readonly Run[],
  { wantsHidden, best }: WantedOfStep,
): void {
  let token = 0
  let output = 0
  runs.forEach((run, index) => {
    const first = token
    run.tokens.forEach((id, offset) => {
      const position = run.position + offset
      words[layout.tokenIds / 4 + token] = id
      words[layout.positions / 4 + token] = position
      words[layout.cacheRows / 4 + token] = cacheRow(run.table, position)
      if (offset >= run.tokens.length - run.outputs) words[layout.outputs / 4 + output++] = token
      token++
    })
    words.set([first, run.tokens.length, index, 0], layout.runs / 4 + index * RUN_WORDS)
    words.set(run.table.blocks, layout.blockTables / 4 + index * layout.blocksPerSequence)
  })
  words[STEP_HEADER.tokens] = token
  words[STEP_HEADER.runs] = runs.length
  words[STEP_HEADER.outputs] = output
  words[STEP_HEADER.hidden] = wantsHidden ? 1 : 0
  words[STEP_HEADER.best] = best
}
