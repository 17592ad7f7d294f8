/** What a plan is: where every byte will be, before anything is loaded. Types only; a plan is plain data and can be printed or cloned. */
import type { Activation, ActivationPrecision, RecordFormat } from '../abi/formats.ts'
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
  /** GPUs that the CUDA executor can use; empty where there are none. */
  readonly devices: readonly MachineDevice[]
  /** Why `devices` is empty: `no library: ...`, `no driver: ...`. */
  readonly deviceProblem?: string
}

/** A GPU. */
export interface MachineDevice {
  /** As the CUDA library numbers them. */
  readonly index: number
  readonly name: string
  /** Memory in all, and memory that can be taken now. */
  readonly bytes: number
  readonly freeBytes: number
}

/** Limits of an engine, positive integers, and how finely it computes: what its buffers are made for. */
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
  /** What activations are rounded to before products with quantised weights (docs/decisions/0011). */
  readonly activations: ActivationPrecision
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
  /** Begins on a page of the system and shares none of its pages with anything else: a file may be mapped over it. */
  readonly hasOwnPages: boolean
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

/** One layer's routed experts in arenas. */
export interface PlacedExperts {
  /** The layer's number in the model. */
  readonly layer: number
  /** Ranges of experts, in order; more than one when the layer's experts do not fit in one arena. */
  readonly routed: readonly PlacedFeedForward[]
}

/** One layer's place. Everything but the routed experts is in `arena`. */
export interface PlacedLayer extends PlacedExperts {
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
  /** Byte offsets of the integers of `cacheBytes`; their scales lie before each. */
  readonly keyCache: number
  readonly valueCache: number
  readonly ffnNorm: PlacedVector
  readonly dense?: PlacedFeedForward
  readonly router?: { readonly gate: PlacedMatrix; readonly selectionBias?: PlacedVector }
  readonly shared?: PlacedFeedForward
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

/** Where the records of each activation format begin. */
export type RecordOffsets = Readonly<Record<RecordFormat, number>>

/**
 * Byte offsets of what every arena begins with; the same in each. Letters: U = ubatch.
 *
 * Where the pool has the routed experts alone, an offset of 0 is something that it has no use for (the kernel module's own data lies at 0). What
 * the GPU writes there (`normed`, `records`, `expertIds`, `expertWeights`) and reads (`routed`) is in [0, end), which is whole pages.
 */
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
  /**
   * Activation records of `normed`, or of the attention's output, or of a feed-forward's hidden row, by activation format; 0 for what there is none
   * of at this precision.
   */
  readonly records: RecordOffsets
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
  /** i32[experts]: rows of an expert's hidden state that are finished. Zero between stages. */
  readonly expertRows: number
  /** f32[rows, ffn]: hidden rows of a feed-forward */
  readonly ffnHidden: number
  /** Records of `ffnHidden`; apart from `records`, whose rows are still read by other workers. */
  readonly ffnRecords: RecordOffsets
  /** f32[U, hidden]: partial of the shared, and of the routed experts */
  readonly shared: number
  readonly routed: number
  /** f32[outputs, vocabulary] */
  readonly logits: number
  /** i32[outputs], and from half of `bestBytes` on f32[outputs]: the best token of those that worker 0 worked out, and its logit; worker w's are `w * bestBytes` further. */
  readonly best: number
  readonly bestBytes: number
  /** Where weights begin. */
  readonly end: number
}

/** What the pool's arenas hold. */
interface WasmArenas {
  readonly arena: ArenaLayout
  /** Bytes of each arena, prefix included. */
  readonly arenas: readonly number[]
}

/** The whole model in arenas. */
export interface WasmModelPlan extends WasmArenas {
  readonly holds: 'model'
  readonly embedding: PlacedMatrix
  readonly outputNorm: PlacedVector
  readonly head: PlacedMatrix
  readonly layers: readonly PlacedLayer[]
}

/** Routed experts in arenas; everything else is on a GPU. */
export interface WasmExpertsPlan extends WasmArenas {
  readonly holds: 'experts'
  /** Layers that are handed to the pool, in order: entry i of the pool's program is for layer i of this list. */
  readonly layers: readonly PlacedExperts[]
}

/** The pool's part of a plan. */
export type WasmPlan = WasmModelPlan | WasmExpertsPlan

/** A weight matrix on a GPU, or one for each expert: blocks as in the file, rows back to back, expert after expert. */
export interface DeviceMatrix {
  readonly matrix: Matrix
  /** In the device's weight region. */
  readonly offset: number
  /** All experts. */
  readonly bytes: number
  readonly expertBytes: number
}

/** A weight vector on a GPU, as f32. */
export interface DeviceVector {
  readonly vector: Vector
  /** In the device's weight region. */
  readonly offset: number
}

/** A gated feed-forward network on a GPU. */
export interface DeviceFeedForward {
  readonly gate: DeviceMatrix
  readonly up: DeviceMatrix
  readonly down: DeviceMatrix
}

/** Where a layer's routed experts are handed to the pool. */
export interface Handoff {
  /** Which entry of the pool's program runs them. */
  readonly entry: number
  /** The arena whose prefix the activations are written to and `routed` is read from: that of the layer's first group of experts. */
  readonly arena: number
  /** What the pool's experts read: the forms of `normed` that are written there. */
  readonly activations: readonly Activation[]
}

/** One layer on a GPU. */
export interface DeviceLayer {
  readonly attention: {
    readonly norm: DeviceVector
    readonly q: DeviceMatrix
    readonly k: DeviceMatrix
    readonly v: DeviceMatrix
    readonly output: DeviceMatrix
    readonly qBias?: DeviceVector
    readonly kBias?: DeviceVector
    readonly vBias?: DeviceVector
    readonly qNorm?: DeviceVector
    readonly kNorm?: DeviceVector
  }
  /** In the device's cache region: f16[blocks, kvHeads, KV_BLOCK_TOKENS, headDim]. */
  readonly keyCache: number
  readonly valueCache: number
  readonly ffnNorm: DeviceVector
  readonly dense?: DeviceFeedForward
  readonly router?: { readonly gate: DeviceMatrix; readonly selectionBias?: DeviceVector }
  readonly shared?: DeviceFeedForward
  /** Of a layer with experts, either these or `handoff`. */
  readonly routed?: DeviceFeedForward
  readonly handoff?: Handoff
}

/** What an engine on a GPU is made for: the numbers of `tcu_shape` (cuda/tandem_cuda.h) that its buffers depend on. */
export interface DeviceShape {
  readonly hidden: number
  readonly heads: number
  readonly kvHeads: number
  readonly headDim: number
  readonly rotary: number
  readonly vocabulary: number
  readonly layers: number
  /** Widest feed-forward row, dense or shared. */
  readonly ffn: number
  readonly ffnExpert: number
  readonly experts: number
  readonly expertsUsed: number
  /** Whether some layer's routed experts are on the device. */
  readonly deviceExperts: boolean
  readonly ubatch: number
  readonly sequences: number
  readonly outputs: number
  readonly kvBlocks: number
  readonly blocksPerSequence: number
  /** Most best tokens that a step may want told of an output row. */
  readonly top: number
  /** 8-bit integers to each value of an activation: 1 for q8, 2 for q16. */
  readonly digits: number
}

/**
 * One GPU's part of a plan. A device has two regions of memory, for weights and for KV caches, and the buffers that the CUDA library takes for
 * itself. Offsets are multiples of 256.
 */
export interface CudaPlan {
  /** `MachineDevice.index`. */
  readonly device: number
  readonly shape: DeviceShape
  readonly embedding: DeviceMatrix
  readonly outputNorm: DeviceVector
  /** The same object as `embedding` when the file ties them. */
  readonly head: DeviceMatrix
  readonly layers: readonly DeviceLayer[]
  readonly weightBytes: number
  readonly cacheBytes: number
  readonly bufferBytes: number
}

/** Bytes on one device, by what they are for. */
export interface DeviceBytes {
  /** `wasm`, or `cuda:` and the GPU's number. */
  readonly id: string
  readonly bytes: number
  readonly weights: number
  readonly kvCache: number
  readonly buffers: number
}

/** Byte offsets of what user stages see, in one memory: see `ArenaLayout`, and `results-layout.ts`. */
export type ViewLayout = Pick<ArenaLayout, 'step' | 'x' | 'shared' | 'routed' | 'expertIds' | 'expertWeights' | 'logits'>

/** The whole plan: `wasm` alone, `cuda` alone, or the routed experts of some layers on `wasm` and everything else on `cuda`. */
export interface Plan {
  readonly pipeline: PipelineDefinition
  readonly limits: Limits
  readonly step: StepLayout
  readonly devices: readonly DeviceBytes[]
  readonly wasm?: WasmPlan
  readonly cuda?: CudaPlan
}
