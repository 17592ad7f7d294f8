/** Where a command's output goes: data to stdout, talk and progress to stderr. */
import { TandemError } from '../errors.ts'
import type { Interruption } from './interruption.ts'
import { type ProgressBar, ProgressLine } from './progress-bar.ts'

/** What takes less time than this needs no bar, ms. */
const BAR_MS = 300

/** What every command gets. */
export class Io {
  readonly interruption: Interruption
  /** No talk and no progress; errors are still told. */
  isQuiet = false
  readonly #line = new ProgressLine(process.stderr)
  #failure: TandemError | undefined

  constructor(interruption: Interruption) {
    this.interruption = interruption
    process.stdout.on('error', (cause: NodeJS.ErrnoException) => {
      // a reader that had enough (`| head`) is no error: stop working, say nothing
      if (cause.code === 'EPIPE') interruption.interrupt('EPIPE')
      else this.#failure ??= new TandemError('ERR_FILE_ACCESS', `stdout cannot be written: ${cause.message}`, { cause })
    })
    process.stderr.on('error', () => undefined)
  }

  get signal(): AbortSignal {
    return this.interruption.signal
  }

  /**
   * Writes data. Resolves when it has been handed on, so that awaiting it keeps memory small however slow the reader is.
   * Throws `ERR_ABORTED` when the reader has gone, `ERR_FILE_ACCESS` when the output cannot be written.
   */
  async write(text: string): Promise<void> {
    this.#line.clear()
    const { promise, resolve } = Promise.withResolvers<void>()
    process.stdout.write(text, () => resolve())
    await promise
    if (this.#failure) throw this.#failure
    if (this.interruption.reason === 'EPIPE') throw new TandemError('ERR_ABORTED', 'nobody reads the output any more')
  }

  /** Writes one line of JSON. */
  writeJson(value: unknown): Promise<void> {
    return this.write(`${JSON.stringify(value)}\n`)
  }

  /** A line for the person, not for the program that reads stdout. */
  talk(line: string): void {
    if (this.isQuiet) return
    this.#line.clear()
    process.stderr.write(`${line}\n`)
  }

  /** A bar that appears when the work takes longer than `delayMs`; only on a terminal that can take a line back. */
  bar(label: string, delayMs: number = BAR_MS): ProgressBar {
    return this.#line.begin(label, delayMs, process.stderr.isTTY && process.env['TERM'] !== 'dumb' && !this.isQuiet)
  }

  /** Does some work under a bar. */
  async during<Result>(label: string, work: (bar: ProgressBar) => Promise<Result>, delayMs?: number): Promise<Result> {
    const bar = this.bar(label, delayMs)
    try {
      return await work(bar)
    } finally {
      bar.end()
    }
  }
}
