/** What `run.ts` asks of an engine's process, and what it answers. One request at a time. */
export type Request =
  /** Loads a model file. `sequences` of `contextTokens` must fit. */
  | {
      readonly kind: 'load'
      readonly path: string
      readonly threads: number
      readonly contextTokens: number
      readonly sequences: number
      readonly ubatch: number
    }
  /** Empties sequence `id`, evaluates tokens and takes the most likely next one. */
  | { readonly kind: 'prompt'; readonly id: number; readonly tokens: readonly number[] }
  /**
   * Appends `tokens[i]` to sequence `ids[i]`, one token per step, all sequences of a step at the same time. After each step the most likely next token is
   * chosen, but the given one is taken: every engine and round computes the same. Tandem then cuts the sequences back to where they were.
   */
  | { readonly kind: 'decode'; readonly ids: readonly number[]; readonly tokens: readonly (readonly number[])[] }
  /** CPU time of the process and all of its threads so far. */
  | { readonly kind: 'cpu' }

/** `ms`: wall time of what was asked, or CPU time; `best`: the most likely tokens in order; `about`: engine and versions, `vocabulary`: tokens. */
export interface Reply {
  readonly ms: number
  readonly best?: readonly number[]
  readonly about?: string
  readonly vocabulary?: number
  readonly error?: string
}
