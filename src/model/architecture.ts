/** What distinguishes one architecture from another, as data. Types only; one file per architecture fills them in. */

/** Whether a tensor must be there: `absent` when the architecture has none. */
export type Presence = 'required' | 'optional'

/** A tensor's possible names, the usual one first: without `blk.N.` for layers, complete with `.weight` or `.bias`. */
export type TensorNames = readonly [string, ...string[]]

/** Facts about an architecture that no file states. */
export interface Architecture {
  /** The value of `general.architecture`, which is also the prefix of its metadata keys. */
  readonly name: string
  /** Families published in it, for the documentation. */
  readonly models: readonly string[]
  readonly rope: {
    /** Elements rotated when the file does not say, as a share of the head. */
    readonly defaultShare: number
  }
  /** Router function when the file does not say. */
  readonly defaultGating: 'softmax' | 'sigmoid'
  /** Whether the chosen experts' weights are divided by their sum when the file does not say. */
  readonly defaultNormalizeWeights: boolean
  readonly tensors: {
    readonly attentionNorm: TensorNames
    readonly ffnNorm: TensorNames
    /** The bias that is added for choosing experts, but not for weighing them; by router function. */
    readonly selectionBias: { readonly names: TensorNames; readonly sigmoid: Presence; readonly softmax: Presence }
    /** Biases of q, k and v. */
    readonly attentionBias: Presence
    /** RMS norms of q and k, per head. */
    readonly headNorm: Presence
  }
}
