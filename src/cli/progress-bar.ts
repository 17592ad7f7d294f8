/** Progress on one line of a terminal. A timer draws it, because a single step of what a person waits for may take minutes. */
import { bytesText } from './text.ts'

const WIDTH = 24
const REDRAW_MS = 100
/** Carriage return and "erase to the end of the line". */
const CLEAR = '\r\u001B[K'

/** `[====    ]`. */
export function meter(done: number, total: number, width: number): string {
  const filled = Math.round((total > 0 ? Math.min(1, done / total) : 1) * width)
  return `[${'='.repeat(filled)}${' '.repeat(width - filled)}]`
}

/** What is shown of some progress. */
export function barText(label: string, done: number, total: number, unit: 'bytes' | 'tokens'): string {
  const share = total > 0 ? Math.min(1, done / total) : 1
  const amount = unit === 'bytes' ? `${bytesText(done)} of ${bytesText(total)}` : `${done} of ${total} ${unit}`
  return `${label} ${meter(done, total, WIDTH)} ${Math.floor(share * 100)} %, ${amount}`
}

/** Something that a person waits for, until `end()`. Before it is told how far it is, its label is shown. */
export class ProgressBar {
  readonly #label: string
  readonly #onEnd: (bar: ProgressBar) => void
  #text: (label: string) => string = (label) => `${label} ...`

  constructor(label: string, onEnd: (bar: ProgressBar) => void) {
    this.#label = label
    this.#onEnd = onEnd
  }

  update(done: number, total: number, unit: 'bytes' | 'tokens', label: string = this.#label): void {
    this.#text = () => barText(label, done, total, unit)
  }

  /** Another text than `barText`'s, asked for whenever it is drawn. */
  show(text: (label: string) => string): void {
    this.#text = text
  }

  get text(): string {
    return this.#text(this.#label)
  }

  /** Takes the bar away. May be called again. */
  end(): void {
    this.#onEnd(this)
  }
}

/** The line: of the bars that have begun and not ended the latest is shown, once it has taken longer than its delay. */
export class ProgressLine {
  readonly #stream: NodeJS.WriteStream
  readonly #bars: { readonly bar: ProgressBar; readonly due: number }[] = []
  #timer: NodeJS.Timeout | undefined
  /** What stands there. */
  #drawn = ''

  constructor(stream: NodeJS.WriteStream) {
    this.#stream = stream
  }

  /** `isShown: false` makes a bar that is never drawn. */
  begin(label: string, delayMs: number, isShown: boolean): ProgressBar {
    const bar = new ProgressBar(label, (ended) => this.#end(ended))
    if (!isShown) return bar
    this.#bars.push({ bar, due: performance.now() + delayMs })
    this.#timer ??= setInterval(() => this.#draw(), REDRAW_MS).unref()
    return bar
  }

  /** Makes room for something else on the terminal; the bar comes back below it. */
  clear(): void {
    if (this.#drawn !== '') this.#stream.write(CLEAR)
    this.#drawn = ''
  }

  #draw(): void {
    const now = performance.now()
    const shown = this.#bars.findLast(({ due }) => now >= due)
    if (!shown) return this.clear()
    const text = shown.bar.text.slice(0, (this.#stream.columns || 80) - 1)
    if (text === this.#drawn) return
    this.#stream.write(CLEAR + text)
    this.#drawn = text
  }

  #end(bar: ProgressBar): void {
    const index = this.#bars.findIndex((each) => each.bar === bar)
    if (index < 0) return
    this.#bars.splice(index, 1)
    this.clear()
    if (this.#bars.length > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }
}
