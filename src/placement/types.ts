/** What a plan is: where every byte will be, before anything is loaded. Types only; a plan is plain data and can be printed or cloned. */
import type { Matrix, Vector } from '../model/types.ts'
import type { PipelineDefinition } from './stages.ts'

/** What the machine offers. */
export interface Machine {
  /** Logical cores this process may use. */
  readonly cores: number
  /** Physical cores among them; default: `cores`. */
  readonly physicalCores?: number
  /** Memory that can be taken now, bytes. */
  readonly availableBytes: number
  /** Executors of this build that have a device to run on. */
  readonly executors: ReadonlySet<string>
}

/** Limits of an engine; all positive integers. */
export interface Limits {
  /** Longest sequence, tokens. */
  readonly contextTokens: number
  /** KV cache shared by all sequences, tokens; a multiple of the block size. */
  readonly kvTokens: number
  /** Sequences that may exist at once. */
  readonly sequences: number
  /** Tokens that go through one step together. */
  readonly ubatch: number
  /** Positions per step whose logits can be asked for. */
  readonly outputs: number
  /** Worker threads of the pool. */
  readonly threads: number
  /** Largest arena, bytes. */
  readonly arenaBytes: number
}

/** A weight matrix, or a range of experts of one, in an arena. */
export interface PlacedMatrix {
  readonly matrix: Matrix
  readonly arena: number
  readonly offset: number
  readonly expertBegin: number
  readonly expertEnd: number
  /** Packed bytes of one expert's matrix. */
  readonly expertBytes: number
}

/** A weight vector in an arena, as f32. */
export interface PlacedVector {
  readonly vector: Vector
  readonly arena: number
  readonly offset: number
}

/** A gated feed-forward network in one arena. */
export interface PlacedFeedForward {
  readonly gate: PlacedMatrix
  readonly up: PlacedMatrix
  readonly down: PlacedMatrix
}

/** One layer's place. Everything but the routed experts is in `arena`. */
export interface PlacedLayer {
  readonly arena: number
  readonly attention: {
    readonly norm: PlacedVector
    readonly q: PlacedMatrix
    readonly k: PlacedMatrix
    readonly v: PlacedMatrix
    readonly output: PlacedMatrix
    readonly qBias?: PlacedVector
    readonly kBias?: PlacedVector
    readonly vBias?: PlacedVector
    readonly qNorm?: PlacedVector
    readonly kNorm?: PlacedVector
  }
  /** Byte offsets of f16[blocks, kvHeads, KV_BLOCK_TOKENS, headDim]. */
  readonly keyCache: number
  readonly valueCache: number
  readonly ffnNorm: PlacedVector
  readonly dense?: PlacedFeedForward
  readonly router?: { readonly gate: PlacedMatrix; readonly selectionBias?: PlacedVector }
  readonly shared?: PlacedFeedForward
  /** Ranges of experts, in order; more than one when the layer's experts do not fit in one arena. */
  readonly routed: readonly PlacedFeedForward[]
}

/** Byte offsets of the fields of a step record; relative to the record's start. See `step-layout.ts`. */
export interface StepLayout {
  readonly bytes: number
  readonly tokenIds: number
  readonly positions: number
  readonly cacheRows: number
  readonly outputs: number
  readonly runs: number
  readonly blockTables: number
  readonly blocksPerSequence: number
}

/** Byte offsets of what every arena begins with; the same in each. Letters: U = ubatch. */
export interface ArenaLayout {
  /** Offset of worker 0's private bytes (stack, then scratch); worker w's are `w * workerBytes` further. */
  readonly workers: number
  readonly workerBytes: number
  readonly stackBytes: number
  readonly scratchBytes: number
  readonly step: number
  /** f32[U, rotary]: cos, then sin */
  readonly angles: number
  /** f32[U, hidden]: the residual stream */
  readonly x: number
  /** f32[U, hidden] */
  readonly normed: number
  /** Activation records of `normed`, or of the attention's output, or of a feed-forward's hidden row, by activation format. */
  readonly records: Readonly<Record<'q8x32' | 'q8x256', number>>
  /** f32[U, heads * headDim] */
  readonly q: number
  /** f32[U, kvHeads * headDim] */
  readonly k: number
  readonly v: number
  /** f32[U, heads * headDim] */
  readonly attended: number
  /** What workers leave of the chunks of single tokens' contexts, for merging: room for `attentionChunks` chunks of all heads. */
  readonly attentionParts: number
  readonly attentionChunks: number
  /** f32[U, experts] */
  readonly routerLogits: number
  /** i32[U, expertsUsed], f32[U, expertsUsed] */
  readonly expertIds: number
  readonly expertWeights: number
  /** f32[rows, ffn]: hidden rows of a feed-forward */
  readonly ffnHidden: number
  /** Records of `ffnHidden`; apart from `records`, whose rows are still read by other workers. */
  readonly ffnRecords: Readonly<Record<'q8x32' | 'q8x256', number>>
  /** f32[U, hidden]: partial of the shared, and of the routed experts */
  readonly shared: number
  readonly routed: number
  /** f32[outputs, vocabulary] */
  readonly logits: number
  /** Where weights begin. */
  readonly end: number
}

/** Bytes on one device, by what they are for. */
export interface DeviceBytes {
  readonly id: string
  readonly bytes: number
  readonly weights: number
  readonly kvCache: number
  readonly buffers: number
}

/** The whole plan. */
export interface Plan {
  readonly pipeline: PipelineDefinition
  readonly limits: Limits
  readonly step: StepLayout
  readonly arena: ArenaLayout
  /** Bytes of each arena, prefix included. */
  readonly arenas: readonly number[]
  readonly embedding: PlacedMatrix
  readonly outputNorm: PlacedVector
  readonly head: PlacedMatrix
  readonly layers: readonly PlacedLayer[]
  readonly devices: readonly DeviceBytes[]
}
