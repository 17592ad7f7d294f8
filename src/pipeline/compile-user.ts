/** Puts calls of user stages into a program. Pure. */
import { TandemError } from '../errors.ts'
import type { Hyperparameters } from '../model/types.ts'
import type { UserStage } from '../placement/stages.ts'
import type { ArenaLayout, StepLayout } from '../placement/types.ts'
import type { Program, StageCall, UserCall, ViewField } from './program.ts'
import { type UserStagePoint, VIEW_FIELDS, type ViewArrays } from './user-stage.ts'

const layerOf = (call: StageCall): number | undefined => ('layer' in call ? call.layer : undefined)

/** Every array that a view may have. */
function viewFields(
  { hidden, expertsUsed, vocabulary }: Hyperparameters,
  arena: ArenaLayout,
  step: StepLayout,
): Record<keyof ViewArrays, ViewField> {
  const rows = (name: keyof ViewArrays): ViewField => ({ name, type: 'f32', rows: 'tokens', columns: hidden, offset: 0, writable: true })
  return {
    x: { ...rows('x'), offset: arena.x },
    shared: { ...rows('shared'), offset: arena.shared },
    routed: { ...rows('routed'), offset: arena.routed },
    expertIds: { ...rows('expertIds'), type: 'i32', columns: expertsUsed, offset: arena.expertIds, writable: false },
    expertWeights: { ...rows('expertWeights'), columns: expertsUsed, offset: arena.expertWeights },
    outputs: { ...rows('outputs'), type: 'i32', rows: 'outputs', columns: 1, offset: arena.step + step.outputs, writable: false },
    logits: { ...rows('logits'), rows: 'outputs', columns: vocabulary, offset: arena.logits },
  }
}

/** A stage of one layer in a program: its calls are [begin, end), and what it works on is in `arena`. */
interface StageRange {
  readonly layer: number | undefined
  readonly begin: number
  readonly end: number
  readonly arena: number
}

/** Where a stage is, for every layer that has it. */
function stageRanges(calls: readonly StageCall[], stage: StageCall['stage']): StageRange[] {
  const indices = Map.groupBy(calls.keys(), (index) => (calls[index]!.stage === stage ? layerOf(calls[index]!) : null))
  return [...indices].flatMap(([layer, own]) => {
    if (layer === null) return []
    let [begin, end] = [own[0]!, own.at(-1)! + 1]
    if (stage !== 'routedExperts') return [{ layer, begin, end, arena: calls[begin]!.arena }]
    // experts may be in other arenas than all else: their inputs are copied there before, and their sum is copied back
    while (calls[begin - 1]!.stage === 'transfer') begin--
    while (calls[end]!.stage === 'transfer') end++
    return [{ layer, begin, end, arena: calls[end]!.arena }]
  })
}

/** Where a user stage is called. Throws `ERR_PIPELINE_INVALID` where the model has no such stage. */
function placesOf({ name, when, stage, layers }: UserStage, calls: readonly StageCall[], pipeline: string): StageRange[] {
  const ranges = stageRanges(calls, stage)
  const fail = (what: string): TandemError =>
    new TandemError('ERR_PIPELINE_INVALID', `pipeline '${pipeline}': user stage '${name}' is ${when} ${stage}, which ${what}`)
  if (ranges.length === 0) throw fail('this model does not have')
  if (layers === 'all') return ranges
  const missing = layers.find((layer) => !ranges.some((range) => range.layer === layer))
  if (missing !== undefined) throw fail(`layer ${missing} of this model does not have`)
  return ranges.filter(({ layer }) => layer !== undefined && layers.includes(layer))
}

/** The program's calls with those of the user stages among them: those after a stage, then those before the next, each in the pipeline's order. */
export function withUserStages(
  calls: readonly StageCall[],
  stages: readonly UserStage[],
  pipeline: string,
  parts: { readonly hyper: Hyperparameters; readonly arena: ArenaLayout; readonly step: StepLayout },
): Pick<Program, 'calls' | 'userStages'> {
  const fields = viewFields(parts.hyper, parts.arena, parts.step)
  const before = calls.map((): UserCall[] => [])
  const after = calls.map((): UserCall[] => [])
  for (const [user, each] of stages.entries()) {
    for (const { layer, begin, end, arena } of placesOf(each, calls, pipeline)) {
      const list = each.when === 'before' ? before[begin]! : after[end - 1]!
      list.push({ stage: 'user', arena, user, ...(layer === undefined ? {} : { layer }) })
    }
  }
  const userStages = stages.map((each) => ({
    ...each,
    fields: VIEW_FIELDS[`${each.when} ${each.stage}` as UserStagePoint].map((name) => fields[name]),
  }))
  return { calls: calls.flatMap((call, index) => [...before[index]!, call, ...after[index]!]), userStages }
}
