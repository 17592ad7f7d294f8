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

/** A pipeline: a placement plus ring depth and limits. Made with `definePipeline`. */
export interface PipelineDefinition {
  readonly name: string
  readonly placement: StagePlacement
  /** Steps that may be in flight between the engine and the executor. */
  readonly ringDepth: number
  /** Whether the GPU computes the shared experts while the pool computes the routed ones. */
  readonly overlap: boolean
}
