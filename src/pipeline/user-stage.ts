/**
 * User stages: functions of a program's author that run before or after a stage of the model and see what is there, typed. An observer gets a copy,
 * in a thread of its own; a steerer writes to what the model works on, while the model waits for it.
 */
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { TandemError } from '../errors.ts'
import { type StageName, STAGES, type UserStage } from '../placement/stages.ts'

/**
 * What a user stage may see, by the place where it stands; U is the step's number of tokens, O of those whose logits are wanted. There is no place
 * before `embed`: nothing is there yet.
 */
export const VIEW_FIELDS = {
  'after embed': ['x'],
  'before attention': ['x'],
  'after attention': ['x'],
  'before denseFfn': ['x'],
  'after denseFfn': ['x'],
  'before router': ['x'],
  'after router': ['expertIds', 'expertWeights'],
  'before sharedExperts': ['x'],
  'after sharedExperts': ['shared'],
  'before routedExperts': ['expertIds', 'expertWeights'],
  'after routedExperts': ['routed'],
  'before combine': ['x', 'routed'],
  'after combine': ['x'],
  'before head': ['x', 'outputs'],
  'after head': ['logits', 'outputs'],
} as const satisfies Record<string, readonly (keyof ViewArrays)[]>

/** A place between two stages, such as `after router`. */
export type UserStagePoint = keyof typeof VIEW_FIELDS

/** Consecutive tokens of one sequence in a step. */
export interface TokenRun {
  /** The first of them among the step's tokens, and how many there are. */
  readonly first: number
  readonly count: number
}

/** What every view has. To write to it changes nothing. */
export interface StepView {
  /** i32[U]: the step's tokens, of one sequence or of several. */
  readonly tokens: Int32Array
  /** i32[U]: where in its sequence each of them stands. */
  readonly positions: Int32Array
  /** One for each sequence that is in the step. */
  readonly runs: readonly TokenRun[]
}

/** The arrays of views, rows one after the other. A steerer may write to all but `expertIds` and `outputs`. */
export interface ViewArrays {
  /** f32[U, hidden]: the residual stream. */
  readonly x: Float32Array
  /** i32[U, expertsUsed]: the experts of every token. */
  readonly expertIds: Int32Array
  /** f32[U, expertsUsed]: what each of them counts for. */
  readonly expertWeights: Float32Array
  /** f32[U, hidden]: what the shared expert adds to the residual stream. */
  readonly shared: Float32Array
  /** f32[U, hidden]: what the routed experts add, weighted and summed. */
  readonly routed: Float32Array
  /** i32[O]: which of the step's tokens have logits. */
  readonly outputs: Int32Array
  /** f32[O, vocabulary]. */
  readonly logits: Float32Array
}

/** What a user stage at `Point` sees. */
export type UserStageView<Point extends UserStagePoint = UserStagePoint> = StepView & Pick<ViewArrays, (typeof VIEW_FIELDS)[Point][number]>

/** What a user stage is told beside its view. */
export interface UserStageContext<Data = unknown> {
  /** The user stage's name. */
  readonly name: string
  /** The layer that it is called for; undefined at `embed` and `head`. */
  readonly layer: number | undefined
  /** Steps since the model was loaded, this one included: calls of one step have the same. */
  readonly step: number
  /** `UserStageOptions.data`, a copy. */
  readonly data: Data
  /** Sizes that the arrays of a view are made of, and the model's number of experts. */
  readonly shape: {
    readonly hidden: number
    readonly vocabulary: number
    readonly experts: number
    readonly expertsUsed: number
  }
}

/**
 * The function of a user stage. What it returns, unless that is undefined, is cloned to the program, which reads it with `Engine.userStage`. An
 * observer's view is its own to keep, and it may be async. A steerer's view ends with the call, and it must not be async. What it throws becomes
 * `ERR_USER_STAGE`.
 */
export type UserFunction<Point extends UserStagePoint = UserStagePoint, Value = unknown, Data = unknown> = (
  view: UserStageView<Point>,
  context: UserStageContext<Data>,
) => Value

/** What `definePipeline` takes for each user stage, but for where it stands. */
export interface UserStageCommon {
  /** For `Engine.userStage`, and for messages. */
  readonly name: string
  /** The layers that it is called for. Default `all` that have the stage; `embed` and `head` belong to no layer. */
  readonly layers?: readonly number[] | 'all'
  /** An ES module, as a URL or a path, that exports the function. A module that is written for it can be named by `import.meta.url`. */
  readonly module: URL | string
  /** Name of the exported function, a `UserFunction`. Default `default`. */
  readonly export?: string
  /** Whether the function may write to its view: then the model waits for it. Default false. */
  readonly steer?: boolean
  /** Passed to every call. Must be cloneable. */
  readonly data?: unknown
  /** Calls that an observer may be behind: 1, 2, 4, ... 64. Default 8. */
  readonly queue?: number
  /**
   * What happens when an observer is as far behind as `queue` allows: `drop` leaves calls out and counts them, so that the model never waits;
   * `wait` loses nothing. Default `drop`.
   */
  readonly whenFull?: 'wait' | 'drop'
}

/** A user stage: where it stands, `before` or `after` a stage, and what it runs. */
export type UserStageOptions = UserStageCommon &
  (
    | { readonly before: Exclude<StageName, 'embed'>; readonly after?: undefined }
    | { readonly after: StageName; readonly before?: undefined }
  )

const QUEUES: readonly number[] = [1, 2, 4, 8, 16, 32, 64]

function invalid(pipeline: string, message: string): TandemError {
  return new TandemError('ERR_PIPELINE_INVALID', `pipeline '${pipeline}': ${message}`)
}

function moduleUrl(module: unknown): string | undefined {
  if (module instanceof URL) return module.href
  if (typeof module !== 'string' || module === '') return undefined
  return /^(file|data|node):/.test(module) ? module : pathToFileURL(resolve(module)).href
}

/** A copy of what the program passes, so that it cannot change any more. Throws what `structuredClone` throws. */
function cloned(pipeline: string, where: string, data: unknown): unknown {
  try {
    return structuredClone(data)
  } catch (cause) {
    throw new TandemError('ERR_PIPELINE_INVALID', `pipeline '${pipeline}': ${where}: data cannot be cloned`, { cause })
  }
}

function checkLayers(layers: unknown, isOfLayer: boolean): boolean {
  if (layers === 'all') return true
  return isOfLayer && Array.isArray(layers) && layers.length > 0 && layers.every((layer) => Number.isSafeInteger(layer) && layer >= 0)
}

/** Checks one user stage and fills in what it leaves out. Throws `ERR_PIPELINE_INVALID`. */
export function defineUserStage(pipeline: string, options: UserStageOptions): UserStage {
  const {
    name,
    before,
    after,
    layers = 'all',
    module,
    export: exported = 'default',
    steer = false,
    data,
    queue = 8,
    whenFull = 'drop',
  } = options
  if (typeof name !== 'string' || name === '') throw invalid(pipeline, 'a user stage needs a name')
  const where = `user stage '${name}'`
  if ((before === undefined) === (after === undefined)) throw invalid(pipeline, `${where} needs either before or after`)
  const when = before === undefined ? 'after' : 'before'
  const stage = STAGES.find((each) => each === (before ?? after))
  if (!stage) throw invalid(pipeline, `${where} is ${when} '${before ?? after}'; the stages are ${STAGES.join(', ')}`)
  if (!(`${when} ${stage}` in VIEW_FIELDS)) throw invalid(pipeline, `${where} is ${when} ${stage}, where there is nothing to see`)
  if (!checkLayers(layers, stage !== 'embed' && stage !== 'head')) {
    throw invalid(
      pipeline,
      `${where}: layers must be 'all' or numbers of layers, and ${stage === 'embed' || stage === 'head' ? "'all' for " : ''}${stage}`,
    )
  }
  const url = moduleUrl(module)
  if (url === undefined)
    throw invalid(pipeline, `${where}: module must be a URL or the path of an ES module; functions do not cross threads`)
  if (typeof exported !== 'string' || exported === '') throw invalid(pipeline, `${where}: export must be the name of an export`)
  if (typeof steer !== 'boolean') throw invalid(pipeline, `${where}: steer must be true or false, not ${String(steer)}`)
  if (!QUEUES.includes(queue)) throw invalid(pipeline, `${where}: queue must be one of ${QUEUES.join(', ')}, not ${queue}`)
  if (whenFull !== 'wait' && whenFull !== 'drop')
    throw invalid(pipeline, `${where}: whenFull must be 'wait' or 'drop', not '${String(whenFull)}'`)
  const copy = cloned(pipeline, where, data)
  return {
    name,
    when,
    stage,
    layers: layers === 'all' ? layers : [...layers],
    module: url,
    export: exported,
    steer,
    data: copy,
    queue,
    whenFull,
  }
}

/** The options that a user stage can be made of again. */
export function userStageOptions({ when, stage, ...rest }: UserStage): UserStageOptions {
  return { ...rest, ...(when === 'before' ? { before: stage as Exclude<StageName, 'embed'> } : { after: stage }) }
}

/** Checks the user stages of a pipeline. Throws `ERR_PIPELINE_INVALID`. */
export function defineUserStages(pipeline: string, list: readonly UserStageOptions[]): UserStage[] {
  if (!Array.isArray(list)) throw invalid(pipeline, 'userStages must be a list')
  const stages = list.map((options: UserStageOptions) => defineUserStage(pipeline, options))
  const names = stages.map(({ name }) => name)
  const twice = names.find((name, index) => names.indexOf(name) !== index)
  if (twice !== undefined) throw invalid(pipeline, `two user stages are named '${twice}'`)
  return stages
}
