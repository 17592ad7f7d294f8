/** Tells of lines that cannot be worked on, the first few of them: all are in the output. */
import type { Io } from './io.ts'
import { countText } from './text.ts'

/** Lines of stderr. */
const TOLD = 20

/** See the file's header. */
export class RefusalTalk {
  readonly #input: string
  readonly #io: Io
  #count = 0

  constructor(input: string, io: Io) {
    this.#input = input
    this.#io = io
  }

  tell({ line, message }: { readonly line: number; readonly message: string }): void {
    if (++this.#count <= TOLD) this.#io.talk(`${this.#input}: line ${line}: ${message}`)
  }

  end(): void {
    const more = this.#count - TOLD
    if (more > 0) this.#io.talk(`${this.#input}: and ${countText(more)} more`)
  }
}
