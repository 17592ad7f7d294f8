/** Puts calls of user stages into a program. Pure. */
import { TandemError } from '../errors.ts'
import type { Hyperparameters } from '../model/types.ts'
import type { StageName, UserStage } from '../placement/stages.ts'
import type { StepLayout, ViewLayout } from '../placement/types.ts'
import type { CudaCall, CudaStageCall, CudaUserCall, ProgramUserStage, StageCall, UserCall, ViewField } from './program.ts'
import { type UserStagePoint, VIEW_FIELDS, type ViewArrays } from './user-stage.ts'

const layerOf = (call: StageCall): number | undefined => ('layer' in call ? call.layer : undefined)

/** Every array that a view may have. */
function viewFields(
  { hidden, expertsUsed, vocabulary }: Hyperparameters,
  arena: ViewLayout,
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

/** What the threads of user stages need of them. `arena`: where what they see lies. */
export function programUserStages(
  stages: readonly UserStage[],
  hyper: Hyperparameters,
  arena: ViewLayout,
  step: StepLayout,
): ProgramUserStage[] {
  const fields = viewFields(hyper, arena, step)
  return stages.map((each) => ({
    ...each,
    fields: VIEW_FIELDS[`${each.when} ${each.stage}` as UserStagePoint].map((name) => fields[name]),
  }))
}

/** A stage of one layer in a program: its calls are [begin, end). */
interface StageRange {
  readonly layer: number | undefined
  readonly begin: number
  readonly end: number
}

/** As `StageRange`, on the pool: what the stage works on is in `arena`. */
interface PoolRange extends StageRange {
  readonly arena: number
}

/** Where a stage is in the pool's program, for every layer that has it. */
function poolRanges(calls: readonly StageCall[], stage: StageName): PoolRange[] {
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
function placesOf<Range extends StageRange>(
  { name, when, stage, layers }: UserStage,
  ranges: readonly Range[],
  pipeline: string,
): readonly Range[] {
  const fail = (what: string): TandemError =>
    new TandemError('ERR_PIPELINE_INVALID', `pipeline '${pipeline}': user stage '${name}' is ${when} ${stage}, which ${what}`)
  if (ranges.length === 0) throw fail('this model does not have')
  if (layers === 'all') return ranges
  const missing = layers.find((layer) => !ranges.some((range) => range.layer === layer))
  if (missing !== undefined) throw fail(`layer ${missing} of this model does not have`)
  return ranges.filter(({ layer }) => layer !== undefined && layers.includes(layer))
}

/**
 * The pool's calls with those of user stages among them: those after a stage, then those before the next, each in the pipeline's order. Throws
 * `ERR_PIPELINE_INVALID`.
 */
export function poolUserCalls(calls: readonly StageCall[], stages: readonly UserStage[], pipeline: string): StageCall[] {
  const before = calls.map((): UserCall[] => [])
  const after = calls.map((): UserCall[] => [])
  for (const [user, each] of stages.entries()) {
    for (const { layer, begin, end, arena } of placesOf(each, poolRanges(calls, each.stage), pipeline)) {
      const list = each.when === 'before' ? before[begin]! : after[end - 1]!
      list.push({ stage: 'user', arena, user, ...(layer === undefined ? {} : { layer }) })
    }
  }
  return calls.flatMap((call, index) => [...before[index]!, call, ...after[index]!])
}

/** Where a stage is in the GPU's program: routed experts that the pool has are handed over, and come back. */
function deviceRanges(calls: readonly CudaStageCall[], stage: StageName): StageRange[] {
  const isRouted = stage === 'routedExperts'
  return [...calls.entries()].flatMap(([index, call]) => {
    if (call.stage !== stage && !(isRouted && call.stage === 'publish')) return []
    const layer = call.layer < 0 ? undefined : call.layer
    const isBack = (each: CudaStageCall): boolean => each.stage === 'awaitRouted' && each.layer === layer
    return [{ layer, begin: index, end: call.stage === 'publish' ? calls.findIndex(isBack) + 1 : index + 1 }]
  })
}

/**
 * As `poolUserCalls`, for the GPU's calls. Behind a router whose experts are the pool's, observers are called when the pool is told, so that it need
 * not wait for them; a steerer must come before.
 */
export function deviceUserCalls(calls: readonly CudaStageCall[], stages: readonly UserStage[], pipeline: string): CudaCall[] {
  const before = calls.map((): CudaUserCall[] => [])
  const after = calls.map((): CudaUserCall[] => [])
  for (const [user, each] of stages.entries()) {
    for (const { layer, begin, end } of placesOf(each, deviceRanges(calls, each.stage), pipeline)) {
      const list = each.when === 'before' ? before[begin]! : after[end - 1]!
      list.push({ stage: 'user', layer: layer ?? -1, user })
    }
  }
  const steers = ({ user }: CudaUserCall): boolean => stages[user]!.steer
  for (const [index, call] of calls.entries()) {
    if (call.stage !== 'publish') continue
    // the router stands directly before
    const early = [...after[index - 1]!.splice(0), ...before[index]!.splice(0)]
    const list = early.some(steers) ? before[index]! : after[index]!
    list.push(...early)
  }
  return calls.flatMap((call, index) => [...before[index]!, call, ...after[index]!])
}
