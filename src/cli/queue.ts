/** Hands values from callbacks to a loop. */

/** An unbounded queue with one reader. */
export class Queue<Value> implements AsyncIterable<Value> {
  #values: Value[] = []
  #end: { readonly error: unknown } | undefined
  #wake: (() => void) | undefined

  push(value: Value): void {
    this.#values.push(value)
    this.#wake?.()
  }

  /** Nothing more comes; with an error, the loop throws it when it has seen everything. */
  end(error?: unknown): void {
    this.#end = { error }
    this.#wake?.()
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Value, void, undefined> {
    for (;;) {
      const batch = this.#values
      this.#values = []
      // reversed and popped, so that a value is let go of once it has been given out
      batch.reverse()
      for (let value = batch.pop(); value !== undefined; value = batch.pop()) yield value
      if (this.#values.length > 0) continue
      if (this.#end) {
        if (this.#end.error !== undefined) throw this.#end.error
        return
      }
      await new Promise<void>((resolve) => (this.#wake = resolve))
    }
  }
}
