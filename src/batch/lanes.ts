/** So many pieces of work at a time. */

/** A counting semaphore for one who waits. */
export class Lanes {
  readonly #most: number
  #busy = 0
  #wake: (() => void) | undefined

  constructor(most: number) {
    this.#most = most
  }

  /** Resolves when a lane is free, and takes it. */
  async enter(): Promise<void> {
    while (this.#busy >= this.#most) await this.#change()
    this.#busy++
  }

  leave(): void {
    this.#busy--
    this.#wake?.()
  }

  /** Resolves when all are free. */
  async empty(): Promise<void> {
    while (this.#busy > 0) await this.#change()
  }

  /** Resolves when somebody leaves. */
  async #change(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#wake = resolve
    })
  }
}
