/** The stages of a model's forward pass and the executors that can run them. */

/** Every stage, in the order in which a token meets them. */
export const STAGES = ['embed', 'attention', 'denseFfn', 'router', 'sharedExperts', 'routedExperts', 'combine', 'head'] as const

/** A stage's name. */
export type StageName = (typeof STAGES)[number]

/** What runs stages: the WASM pool, or a GPU through the CUDA worker. */
export const EXECUTORS = ['wasm', 'cuda'] as const

/** An executor's name. */
export type ExecutorName = (typeof EXECUTORS)[number]

/** Which executor runs each stage. */
export type StagePlacement = Readonly<Record<StageName, ExecutorName>>

/** Puts the tensors whose names a pattern matches on an executor. */
export interface Override {
  /** A regular expression that is looked for in tensor names, such as `ffn_(up|gate|down)_exps` or `blk\.(4|5)\.ffn_.*_exps`. */
  readonly pattern: string
  readonly executor: ExecutorName
}

/** A user stage as a pipeline has it; `UserStageOptions` (src/pipeline/user-stage.ts) says what the fields mean. Plain data. */
export interface UserStage {
  readonly name: string
  readonly when: 'before' | 'after'
  readonly stage: StageName
  readonly layers: readonly number[] | 'all'
  /** URL of the module. */
  readonly module: string
  readonly export: string
  readonly steer: boolean
  readonly data: unknown
  readonly queue: number
  readonly whenFull: 'wait' | 'drop'
}

/** A pipeline: a placement plus ring depth, user stages and options. Made with `definePipeline`. */
export interface PipelineDefinition {
  readonly name: string
  readonly placement: StagePlacement
  /** Steps that may be in flight between the engine and the executor. */
  readonly ringDepth: number
  /** Whether the GPU computes the shared experts while the pool computes the routed ones. */
  readonly overlap: boolean
  /** Tensors that go elsewhere than their stage; a caller's own overrides come first. Default none. */
  readonly tensors?: readonly Override[]
  /** Functions of the user between the stages. Default none. */
  readonly userStages?: readonly UserStage[]
}
