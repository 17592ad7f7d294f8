/** Lines that a person types, or that a program pipes in. */
import { createInterface } from 'node:readline'
import { TandemError } from '../errors.ts'
import type { Io } from './io.ts'

/** Lines, without their ends, until the input's end. Throws `ERR_ABORTED`. */
export type Lines = AsyncIterable<string>

const aborted = (): TandemError => new TandemError('ERR_ABORTED', 'reading from stdin was aborted')

/** Lines from a pipe or a file. */
export async function* pipedLines(io: Io): AsyncGenerator<string, void, undefined> {
  const { stdin } = process
  const input = createInterface({ input: stdin, crlfDelay: Infinity })
  // readline's loop ends quietly when it is closed
  const close = (): void => input.close()
  io.signal.addEventListener('abort', close, { once: true })
  try {
    if (!io.signal.aborted) yield* input
    if (io.signal.aborted) throw aborted()
  } finally {
    io.signal.removeEventListener('abort', close)
    input.close()
    // an open stdin would keep the process alive
    stdin.destroy()
  }
}

/** Lines from a terminal, with editing and history. */
export async function* terminalLines(io: Io): AsyncGenerator<string, void, undefined> {
  const history: string[] = []
  for (;;) {
    const lines = await question(io, history)
    if (lines.length === 0) return
    yield* lines
  }
}

/**
 * One line, several when a text is pasted, none at Ctrl-D. An interface lives as long as its question: while an answer is written the
 * terminal is in its ordinary mode, and Ctrl-C is a signal like in every other command.
 */
async function question(io: Io, history: string[]): Promise<readonly string[]> {
  const input = createInterface({ input: process.stdin, output: process.stderr, terminal: true, history: [...history], prompt: '> ' })
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const lines: string[] = []
  input.on('history', (changed) => history.splice(0, Infinity, ...changed))
  input.on('line', (line) => {
    lines.push(line)
    resolve()
  })
  input.on('SIGINT', () => io.interruption.interrupt('SIGINT'))
  input.on('close', resolve)
  const abort = (): void => reject(aborted())
  io.signal.addEventListener('abort', abort, { once: true })
  if (io.signal.aborted) abort()
  else input.prompt()
  try {
    await promise
    if (lines.length === 0) process.stderr.write('\n')
    return lines
  } finally {
    io.signal.removeEventListener('abort', abort)
    input.close()
  }
}
