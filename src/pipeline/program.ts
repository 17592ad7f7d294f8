/**
 * Programs: flat lists of stage calls that compute one step for all layers. Plain data: they are printed by `tandem plan`. The pool's is cloned to
 * the workers once, and walked by each of them for every step; its offsets are bytes in the call's arena. The GPU's is walked by the CUDA worker.
 */
import type { Activation } from '../abi/formats.ts'
import type { StageName, UserStage } from '../placement/stages.ts'
import type { ResultsLayout } from '../placement/results-layout.ts'
import type { ArenaLayout, StepLayout } from '../placement/types.ts'
import type { ViewArrays } from './user-stage.ts'

/** A packed weight matrix, or expert `expertBegin` and following of one. */
export interface MatrixCall {
  /** ggml type id. */
  readonly format: number
  /** What the format wants its input to be, and what products are told of it: see `MATMUL`. */
  readonly activation: Activation
  readonly flags: number
  readonly offset: number
  readonly rows: number
  readonly columns: number
  readonly expertBytes: number
}

/** A gated feed-forward network. `records`: the activation formats that gate and up need of their input, without repeats. */
export interface FeedForwardCall {
  readonly gate: MatrixCall
  readonly up: MatrixCall
  readonly down: MatrixCall
}

/** x = embedding rows of the step's tokens. */
export interface EmbedCall {
  readonly stage: 'embed'
  readonly arena: number
  readonly weights: MatrixCall
}

/**
 * x += output(attention(norm x)); keys and values are stored on the way. Offsets 0 mean absent. With `selects`, the last layer's: of x only the rows of
 * the step's output tokens are wanted from then on, and they become its first rows.
 */
export interface AttentionCall {
  readonly stage: 'attention'
  readonly arena: number
  readonly layer: number
  readonly norm: number
  readonly q: MatrixCall
  readonly k: MatrixCall
  readonly v: MatrixCall
  readonly output: MatrixCall
  readonly qBias: number
  readonly kBias: number
  readonly vBias: number
  readonly qNorm: number
  readonly kNorm: number
  readonly keyCache: number
  readonly valueCache: number
  readonly selects: boolean
}

/** x += down(silu(gate) * up) of norm x. */
export interface DenseFfnCall {
  readonly stage: 'denseFfn'
  readonly arena: number
  readonly layer: number
  readonly norm: number
  readonly weights: FeedForwardCall
}

/** normed = norm x, its records for the layer's experts, and for every token its experts' ids and weights. */
export interface RouterCall {
  readonly stage: 'router'
  readonly arena: number
  readonly layer: number
  readonly norm: number
  readonly gate: MatrixCall
  readonly selectionBias: number
  /** Activation formats that the shared and routed experts of this layer read. */
  readonly records: readonly Activation[]
}

/** shared = the shared expert of `normed`. */
export interface SharedExpertsCall {
  readonly stage: 'sharedExperts'
  readonly arena: number
  readonly layer: number
  readonly weights: FeedForwardCall
}

/** routed (+)= sum of weight * expert, over the chosen experts in [expertBegin, expertEnd). The layer's first call starts from zero. */
export interface RoutedExpertsCall {
  readonly stage: 'routedExperts'
  readonly arena: number
  readonly layer: number
  readonly expertBegin: number
  readonly expertEnd: number
  readonly isFirst: boolean
  readonly weights: FeedForwardCall
}

/** x += routed + shared. */
export interface CombineCall {
  readonly stage: 'combine'
  readonly arena: number
  readonly layer: number
  readonly hasShared: boolean
}

/** logits = head(norm x) of the step's output tokens: with `isSelected` all rows of x, see `AttentionCall`. */
export interface HeadCall {
  readonly stage: 'head'
  readonly arena: number
  readonly isSelected: boolean
  readonly norm: number
  readonly weights: MatrixCall
}

/** A buffer that crosses between arenas: `bytesPerToken` bytes for each token of the step. */
export interface TransferBuffer {
  readonly name: string
  readonly offset: number
  readonly bytesPerToken: number
}

/** Copies activations from one arena to another. Not a stage of the model: placement puts it where arenas meet. */
export interface TransferCall {
  readonly stage: 'transfer'
  /** The arena written to. */
  readonly arena: number
  readonly from: number
  readonly buffers: readonly TransferBuffer[]
}

/** Calls a function of the user: see `user-stage.ts`. */
export interface UserCall {
  readonly stage: 'user'
  /** The arena that holds what the function sees. */
  readonly arena: number
  readonly layer?: number
  /** Index in `Program.userStages`. */
  readonly user: number
}

/** One entry of a program. */
export type StageCall =
  | EmbedCall
  | AttentionCall
  | DenseFfnCall
  | RouterCall
  | SharedExpertsCall
  | RoutedExpertsCall
  | CombineCall
  | HeadCall
  | TransferCall
  | UserCall

/** Numbers that every stage needs. */
export interface ProgramShape {
  readonly hidden: number
  readonly heads: number
  readonly kvHeads: number
  readonly headDim: number
  readonly rotary: number
  readonly epsilon: number
  readonly experts: number
  readonly expertsUsed: number
  readonly ffnExpert: number
  readonly vocabulary: number
  /** `GATING` number. */
  readonly gating: number
  readonly normalizeWeights: boolean
  readonly weightsScale: number
  /** Radians per position of each rotated pair: f64[rotary / 2]. */
  readonly ropeFrequencies: readonly number[]
}

/** Calls that compute one layer's routed experts for the GPU. */
export interface ProgramEntry {
  readonly layer: number
  /** Indices into `calls`: [begin, end). */
  readonly begin: number
  readonly end: number
}

/** An array of a user stage's view in an arena. */
export interface ViewField {
  readonly name: keyof ViewArrays
  readonly type: 'i32' | 'f32'
  /** Of what it has a row each, and the elements of one. */
  readonly rows: 'tokens' | 'outputs'
  readonly columns: number
  readonly offset: number
  /** Whether a steerer may write to it. */
  readonly writable: boolean
}

/** A user stage with what it needs in a thread. */
export interface ProgramUserStage extends UserStage {
  readonly fields: readonly ViewField[]
}

/** User stages with all that their threads need, wherever the model runs. */
export interface UserStageProgram {
  readonly shape: ProgramShape
  readonly step: StepLayout
  /** Most tokens, and most output rows, of a step. */
  readonly ubatch: number
  readonly outputs: number
  /** Where the step's record lies in the memory that `fields` are offsets in. */
  readonly arena: Pick<ArenaLayout, 'step'>
  readonly userStages: readonly ProgramUserStage[]
}

/** The pool's program with all that is needed to run it. */
export interface Program extends Omit<UserStageProgram, 'userStages'> {
  readonly arena: ArenaLayout
  readonly calls: readonly StageCall[]
  /** Functions of the user that `calls` has calls of; absent without any. */
  readonly userStages?: readonly ProgramUserStage[]
  /** Where a GPU runs the steps: what each hand-off runs, by `Handoff.entry`. Absent where the pool runs all calls of a step in order. */
  readonly entries?: readonly ProgramEntry[]
}

/** A stage of the GPU's program; what it reads was bound when the weights were loaded. */
export interface CudaStageCall {
  /** `publish` hands a layer's routed experts to the pool, `awaitRouted` waits for their sum. */
  readonly stage: StageName | 'publish' | 'awaitRouted'
  /** -1 for what belongs to no layer. */
  readonly layer: number
}

/** Calls a function of the user: see `user-stage.ts`. */
export interface CudaUserCall {
  readonly stage: 'user'
  /** -1 for what belongs to no layer. */
  readonly layer: number
  /** Index in `UserStageProgram.userStages`. */
  readonly user: number
}

/** One call of the GPU's program. */
export type CudaCall = CudaStageCall | CudaUserCall

/** A GPU's program: calls in the order in which they are queued. */
export interface CudaProgram {
  readonly shape: ProgramShape
  readonly step: StepLayout
  readonly calls: readonly CudaCall[]
  /** Where the GPU leaves results in host memory. */
  readonly results: ResultsLayout
  /** Functions of the user that `calls` has calls of; what they see lies in the memory of the results. Absent without any. */
  readonly user?: UserStageProgram
}

/** The programs of a plan: of each executor that it uses. */
export interface Programs {
  readonly wasm?: Program
  readonly cuda?: CudaProgram
}
