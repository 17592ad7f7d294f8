/** A model's mathematics as data: hyperparameters and, layer by layer, which tensor plays which role. Types only. */
import type { ModelFile, TensorInfo } from '../gguf/types.ts'

/** A weight matrix `W[rows, columns]`, or one such matrix per expert, inside a tensor. */
export interface Matrix {
  readonly tensor: TensorInfo
  readonly columns: number
  /** Rows of one expert's matrix (of the whole matrix when `experts` is 1). */
  readonly rows: number
  readonly experts: number
  /** The tensor's rows per expert; more than `rows` when the tensor holds gate and up merged. */
  readonly rowsPerExpert: number
  /** First row inside each expert's rows. Expert e's row r is tensor row `e * rowsPerExpert + firstRow + r`. */
  readonly firstRow: number
}

/** A vector of weights (norm, bias) of any float format; computed with as f32. */
export interface Vector {
  readonly tensor: TensorInfo
  readonly length: number
}

/** Attention tensors of a layer. */
export interface AttentionWeights {
  /** f32[hidden] */
  readonly norm: Vector
  readonly q: Matrix
  readonly k: Matrix
  readonly v: Matrix
  readonly output: Matrix
  readonly qBias?: Vector
  readonly kBias?: Vector
  readonly vBias?: Vector
  /** f32[headDim], applied per head before rope. */
  readonly qNorm?: Vector
  readonly kNorm?: Vector
}

/** A gated feed-forward network: `down(silu(gate x) * up x)`. */
export interface FeedForward {
  readonly gate: Matrix
  readonly up: Matrix
  readonly down: Matrix
}

/** Everything of one layer. */
export interface Layer {
  readonly index: number
  readonly attention: AttentionWeights
  /** f32[hidden], before the feed-forward part. */
  readonly ffnNorm: Vector
  /** Present in dense layers, instead of the three below. */
  readonly dense?: FeedForward
  readonly router?: { readonly gate: Matrix; readonly selectionBias?: Vector }
  /** Matrices with `experts` > 1. */
  readonly routed?: FeedForward
  readonly shared?: FeedForward
}

/** Rope scaling as the file states it; `none` when it does not. */
export type RopeScaling = { readonly type: 'none' } | { readonly type: 'linear'; readonly factor: number }

/** Hyperparameters, validated: finite, in range, consistent with each other. */
export interface Hyperparameters {
  readonly vocabulary: number
  readonly hidden: number
  /** Layers that run: the file's blocks without its nextn (MTP) blocks. */
  readonly layers: number
  readonly denseLayers: number
  /** Longest context the model was trained for, tokens. */
  readonly contextTokens: number
  readonly heads: number
  readonly kvHeads: number
  readonly headDim: number
  /** Elements of each head that rope rotates. */
  readonly rotary: number
  readonly ropeBase: number
  readonly ropeScaling: RopeScaling
  readonly epsilon: number
  readonly ffnDense: number
  readonly ffnExpert: number
  readonly ffnShared: number
  readonly experts: number
  readonly expertsUsed: number
  readonly gating: 'softmax' | 'sigmoid'
  readonly normalizeWeights: boolean
  /** Factor on the routed experts' weights; 1 when the file has none. */
  readonly weightsScale: number
}

/** A model ready to be placed: what it computes and where every weight is. */
export interface Model {
  readonly architecture: string
  /** `general.name`, or the file's base name. */
  readonly name: string
  readonly file: ModelFile
  readonly hyper: Hyperparameters
  readonly embedding: Matrix
  readonly outputNorm: Vector
  /** The embedding itself when the file ties them. */
  readonly head: Matrix
  readonly layers: readonly Layer[]
}
