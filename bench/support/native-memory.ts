/** The C program that shows what memory costs without Tandem (`memory.c`): built when it is wanted, with gcc or $CC. */
import { type ChildProcessWithoutNullStreams, execFileSync, spawn } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const source = fileURLToPath(new URL('memory.c', import.meta.url))
const cache = fileURLToPath(new URL('../../.cache/', import.meta.url))
const program = `${cache}memory`

/** Builds the program. Throws when there is no compiler. */
export function buildNativeMemory(): void {
  mkdirSync(cache, { recursive: true })
  execFileSync(process.env['CC'] ?? 'gcc', ['-O2', '-march=native', '-Wall', '-Wextra', '-pthread', source, '-o', program], {
    stdio: 'inherit',
  })
}

/** Milliseconds in which `threads` threads touch `mib` MiB of memory that nobody has touched before. */
export function touchFresh(mib: number, threads: number): number {
  return Number(execFileSync(program, ['touch', String(mib), String(threads)], { encoding: 'utf8' }))
}

/** A process that keeps `mib` MiB and reads them when asked. */
export class NativeReader {
  readonly #child: ChildProcessWithoutNullStreams
  readonly #lines: AsyncIterator<string>

  private constructor(mib: number, threads: number) {
    this.#child = spawn(program, ['read', String(mib), String(threads)])
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]()
  }

  /** Resolves when the memory has been filled. */
  static async start(mib: number, threads: number): Promise<NativeReader> {
    const reader = new NativeReader(mib, threads)
    await reader.#answer()
    return reader
  }

  async #answer(): Promise<number> {
    const { done, value } = await this.#lines.next()
    if (done === true) throw new Error('the native reader has ended')
    return Number(value)
  }

  /** Reads everything once; milliseconds. */
  read(): Promise<number> {
    this.#child.stdin.write('\n')
    return this.#answer()
  }

  close(): void {
    this.#child.stdin.end()
  }
}
