/** Reading stdin and text files. */
import { fstatSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { TandemError } from '../errors.ts'
import { access } from '../gguf/reader.ts'

/** Whether stdin is a pipe or a file; a terminal or /dev/null has no text for us. */
export function isPiped(): boolean {
  if (process.stdin.isTTY) return false
  try {
    return !fstatSync(0).isCharacterDevice()
  } catch {
    return false // closed
  }
}

/**
 * All of stdin as text. With `firstByteMs`, undefined when nothing at all has come within that time: a pipe that its other end merely
 * keeps open. Throws `ERR_ABORTED`.
 */
export function readStdin(signal: AbortSignal, firstByteMs?: number): Promise<string | undefined> {
  const { stdin } = process
  const { promise, resolve, reject } = Promise.withResolvers<string | undefined>()
  const chunks: Buffer[] = []
  const timer = firstByteMs === undefined ? undefined : setTimeout(() => resolve(undefined), firstByteMs)
  const aborted = (): void => reject(new TandemError('ERR_ABORTED', 'reading from stdin was aborted'))
  stdin.on('data', (chunk: Buffer) => {
    clearTimeout(timer)
    chunks.push(chunk)
  })
  stdin.on('end', () => resolve(Buffer.concat(chunks).toString('utf8')))
  stdin.on('error', (cause) => reject(new TandemError('ERR_FILE_ACCESS', `stdin cannot be read: ${cause.message}`, { cause })))
  signal.addEventListener('abort', aborted, { once: true })
  if (signal.aborted) aborted()
  return promise.finally(() => {
    clearTimeout(timer)
    signal.removeEventListener('abort', aborted)
    // an open stdin would keep the process alive
    stdin.removeAllListeners('data')
    stdin.destroy()
  })
}

/** A text file. Throws `ERR_FILE_ACCESS`, also when it is not UTF-8; `ERR_ABORTED`. */
export async function readText(path: string, signal: AbortSignal): Promise<string> {
  let bytes: Buffer
  try {
    bytes = await access(path, () => readFile(path, { signal }))
  } catch (error) {
    if (signal.aborted) throw new TandemError('ERR_ABORTED', `${path}: reading was aborted`, { cause: error })
    throw error
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (cause) {
    throw new TandemError('ERR_FILE_ACCESS', `${path}: not UTF-8 text; convert it first`, { cause })
  }
}
