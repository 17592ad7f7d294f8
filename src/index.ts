/** Tandem's public interface. */

// loading and running
export { loadModel, planModel } from './load.ts'
export type { LoadOptions, PlannedModel, Progress } from './engine/load-model.ts'
export type { Engine } from './library.ts'
export type { Answer, Engine as ModelEngine, Session } from './engine/engine.ts'
export type { Delta, Finish, FinishReason, GenerateOptions, Prompt, Timings } from './engine/generate.ts'
export type { BestLogits } from './abi/step.ts'
export type { EvaluateOptions, OnHidden, OnLogits } from './engine/session.ts'
export type { EmbedOptions, Pooling } from './engine/embed.ts'
export type { Continuation, Score, ScoreOptions } from './engine/score.ts'
export type { Profile, StageProfile, StepProfile } from './engine/profile.ts'
export type { EntryTime } from './trace/stage-times.ts'
export type { SamplingOptions } from './sampling/options.ts'
export type { ChatMessage, ChatTemplate, RenderOptions } from './text/chat-template.ts'
export type { Tokenizer } from './text/tokenizer.ts'
export type { DecodeOptions, EncodeOptions } from './text/types.ts'

// batch jobs
export { BatchJob, runBatch } from './batch/job.ts'
export type { BatchOptions } from './batch/job.ts'
export type { Answered, Answerer, LineError, Outcome } from './batch/answerer.ts'
export type { BatchProgress, BatchSummary } from './batch/progress.ts'
export type { InputOptions, OnRefusal } from './batch/survey.ts'
export type { Address, BatchForm, BatchTask, Refusal, TaskOptions } from './batch/task.ts'

// pipelines and placement
export { definePipeline } from './pipeline/define.ts'
export type { PipelineOptions } from './pipeline/define.ts'
export { VIEW_FIELDS } from './pipeline/user-stage.ts'
export type {
  StepView,
  TokenRun,
  UserFunction,
  UserStageCommon,
  UserStageContext,
  UserStageOptions,
  UserStagePoint,
  UserStageView,
  ViewArrays,
} from './pipeline/user-stage.ts'
export type { UserStageResult, UserStageResults } from './user-stages/results.ts'
export { EXECUTORS, STAGES } from './placement/stages.ts'
export type { ExecutorName, Override, PipelineDefinition, StageName, StagePlacement, UserStage } from './placement/stages.ts'
export type { ActivationPrecision, RecordFormat } from './abi/formats.ts'
export type { LimitOptions } from './placement/limits.ts'
export type { PlacementOptions } from './placement/options.ts'

// what `planModel` tells: plain data
export type * from './placement/types.ts'
export type { ResultsLayout } from './placement/results-layout.ts'
export type * from './pipeline/program.ts'

// model files
export { openModelFile } from './gguf/open.ts'
export { describeModel } from './model/describe.ts'
export type { Metadata, MetadataValue, ModelFile, TensorInfo } from './gguf/types.ts'
export type * from './model/types.ts'

// messages of the diagnostics channels: docs/diagnostics.md
export type { LoadMessage } from './engine/load-watch.ts'
export type { GenerateMessage } from './engine/generate-watch.ts'
export type { StepMessage } from './engine/step-watch.ts'
export type { PreemptionMessage } from './engine/sequence-cache.ts'
export type { FailureMessage } from './ring/step-port.ts'
export type { BatchLineMessage } from './batch/line-channel.ts'

// errors
export { ERROR_CODES, TandemError } from './errors.ts'
export type { ErrorCode, ErrorRecord } from './errors.ts'

/** Path of the small model that comes with the package. */
export { POCKET_MODEL } from './pocket-model.ts'
