/** A progress bar on one line of a terminal. */
import { bytesText } from './text.ts'

const WIDTH = 24
const REDRAW_MS = 60
/** Carriage return and "erase to the end of the line". */
const CLEAR = '\r\u001B[K'

/** What is shown of some progress. */
export function barText(label: string, done: number, total: number, unit: 'bytes' | 'tokens'): string {
  const share = total > 0 ? Math.min(1, done / total) : 1
  const filled = Math.round(share * WIDTH)
  const amount = unit === 'bytes' ? `${bytesText(done)} of ${bytesText(total)}` : `${done} of ${total} ${unit}`
  return `${label} [${'='.repeat(filled)}${' '.repeat(WIDTH - filled)}] ${Math.floor(share * 100)} %, ${amount}`
}

/** Draws on `stream`, or nowhere when there is none. */
export class ProgressBar {
  readonly #stream: NodeJS.WriteStream | undefined
  readonly #label: string
  #nextDraw: number
  #isDrawn = false

  constructor(stream: NodeJS.WriteStream | undefined, label: string, delayMs: number) {
    this.#stream = stream
    this.#label = label
    this.#nextDraw = performance.now() + delayMs
  }

  update(done: number, total: number, unit: 'bytes' | 'tokens'): void {
    this.show((label) => barText(label, done, total, unit))
  }

  /** Draws another text than `barText`'s, when it is time to. */
  show(text: (label: string) => string): void {
    const now = performance.now()
    if (!this.#stream || now < this.#nextDraw) return
    this.#nextDraw = now + REDRAW_MS
    this.#isDrawn = true
    this.#stream.write(CLEAR + text(this.#label).slice(0, (this.#stream.columns || 80) - 1))
  }

  /** Takes the bar away again. */
  end(): void {
    if (this.#isDrawn) this.#stream?.write(CLEAR)
    this.#isDrawn = false
  }
}
