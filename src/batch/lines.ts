/** Lines of a file of any size, gunzipped by its name; a line is never longer in memory than the limit. */
import { isUtf8 } from 'node:buffer'
import { createReadStream } from 'node:fs'
import { createGunzip } from 'node:zlib'
import { TandemError } from '../errors.ts'
import { access } from '../gguf/reader.ts'

/** Longest line, bytes; the default. */
export const MAX_LINE_BYTES = 64 * 1024 * 1024

const CHUNK_BYTES = 1 << 18
const NEWLINE = 0x0a
const NOTHING = Buffer.alloc(0)

/** A line. */
export interface Line {
  /** From 1. */
  readonly number: number
  /** Without its end; undefined when it could not be read. */
  readonly text: string | undefined
  /** Why it could not be read. */
  readonly problem?: string
  /** Offset of the byte behind it, in the text as it is after gunzipping. */
  readonly end: number
  /** Whether a newline ends it. */
  readonly isWhole: boolean
}

export const isGzip = (path: string): boolean => path.endsWith('.gz')

/** The bytes of a file. Throws `ERR_FILE_ACCESS`, `ERR_ABORTED`. */
export async function* readBytes(path: string, signal?: AbortSignal): AsyncGenerator<Buffer, void, undefined> {
  const file = createReadStream(path, { highWaterMark: CHUNK_BYTES })
  const bytes = isGzip(path) ? file.pipe(createGunzip({ chunkSize: CHUNK_BYTES })) : file
  // pipe() does not hand errors on
  if (bytes !== file) file.on('error', (error) => bytes.destroy(error))
  const iterator = bytes[Symbol.asyncIterator]() as AsyncIterator<Buffer>
  try {
    for (;;) {
      if (signal?.aborted) throw new TandemError('ERR_ABORTED', `${path}: reading was aborted`, { cause: signal.reason })
      const next = await access(path, () => iterator.next())
      if (next.done) return
      yield next.value
    }
  } finally {
    file.destroy()
    bytes.destroy()
  }
}

/** Lines of a stream of bytes, those of a chunk together. An empty last line is none. */
export async function* splitLines(
  source: AsyncIterable<Buffer> | Iterable<Buffer>,
  maxBytes: number = MAX_LINE_BYTES,
): AsyncGenerator<readonly Line[], void, undefined> {
  let parts: Buffer[] = []
  let held = 0
  let number = 0
  let end = 0

  const take = (last: Buffer, isWhole: boolean): Line => {
    const bytes = held + last.length
    const whole = parts.length === 0 ? last : Buffer.concat([...parts, last])
    parts = []
    held = 0
    number++
    end += bytes + (isWhole ? 1 : 0)
    if (bytes > maxBytes) return { number, text: undefined, problem: `longer than ${maxBytes} bytes`, end, isWhole }
    if (!isUtf8(whole)) return { number, text: undefined, problem: 'not UTF-8', end, isWhole }
    const text = whole.toString('utf8')
    return { number, text: number === 1 ? text.replace(/^\uFEFF/, '') : text, end, isWhole }
  }

  for await (const chunk of source) {
    const lines: Line[] = []
    let begin = 0
    for (let at = chunk.indexOf(NEWLINE); at >= 0; at = chunk.indexOf(NEWLINE, begin)) {
      lines.push(take(chunk.subarray(begin, at), true))
      begin = at + 1
    }
    held += chunk.length - begin
    // of a line that is too long nothing is kept but its length
    if (held > maxBytes) parts = []
    else if (begin < chunk.length) parts.push(chunk.subarray(begin))
    if (lines.length > 0) yield lines
  }
  if (held > 0) yield [take(NOTHING, false)]
}

/** Lines of a file. Throws `ERR_FILE_ACCESS`, `ERR_ABORTED`. */
export function readLines(path: string, maxBytes?: number, signal?: AbortSignal): AsyncGenerator<readonly Line[], void, undefined> {
  return splitLines(readBytes(path, signal), maxBytes)
}
