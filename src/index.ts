/** Tandem's public interface. */

// loading and running
export { loadModel, planModel } from './load.ts'
export type { LoadOptions, PlannedModel, Progress } from './engine/load-model.ts'
export type { Answer, Engine, Session } from './engine/engine.ts'
export type { Delta, Finish, FinishReason, GenerateOptions, Prompt, Timings } from './engine/generate.ts'
export type { EvaluateOptions, OnLogits } from './engine/session.ts'
export type { Profile, StageProfile, StepProfile } from './engine/profile.ts'
export type { SamplingOptions } from './sampling/options.ts'
export type { ChatMessage, ChatTemplate } from './text/chat-template.ts'
export type { Tokenizer } from './text/tokenizer.ts'

// batch jobs
export { BatchJob, runBatch } from './batch/job.ts'
export type { BatchOptions } from './batch/job.ts'
export type { BatchProgress, BatchSummary } from './batch/progress.ts'
export type { Refusal, TaskOptions } from './batch/task.ts'

// pipelines and placement
export { definePipeline } from './pipeline/define.ts'
export type { PipelineOptions } from './pipeline/define.ts'
export type { Override, PlacementOptions } from './placement/options.ts'
export type { ExecutorName, PipelineDefinition, StageName } from './placement/stages.ts'
export type { Limits, Plan } from './placement/types.ts'
export type { CudaCall, CudaProgram, Program, Programs, StageCall } from './pipeline/program.ts'

// model files
export { openModelFile } from './gguf/open.ts'
export { describeModel } from './model/describe.ts'
export type { Metadata, MetadataValue, ModelFile, TensorInfo } from './gguf/types.ts'
export type { Hyperparameters, Model } from './model/types.ts'

// errors
export { ERROR_CODES, TandemError } from './errors.ts'
export type { ErrorCode } from './errors.ts'

/** Path of the small model that comes with the package. */
export { POCKET_MODEL } from './pocket-model.ts'
