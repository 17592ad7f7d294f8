/** The first pass over an input: every line is checked and every id is seen once, before any work begins. */
import { type FileHandle, open } from 'node:fs/promises'
import { TandemError } from '../errors.ts'
import { access } from '../gguf/reader.ts'
import { keyOf } from './answers.ts'
import { IdTable } from './id-table.ts'
import { type Line, readLines } from './lines.ts'
import { isBlank, parseLine } from './parse-line.ts'
import { type BatchTask, isRefusal, type Refusal } from './task.ts'

/** Which lines of which file. */
export interface InputOptions {
  /** A file of JSON lines; gunzipped when its name ends with `.gz`. */
  readonly input: string
  /** Only the first so many tasks. Default: all. */
  readonly limit?: number | undefined
  /** A longer line is an error of that line, bytes. Default 64 MiB. */
  readonly maxLineBytes?: number | undefined
  /** Called with the lines that have been checked so far, before any work begins. */
  readonly onChecked?: ((lines: number) => void) | undefined
  readonly signal?: AbortSignal | undefined
}

/** What the first pass found. */
export interface Survey {
  readonly ids: IdTable
  /** Lines that are not blank. */
  readonly lines: number
  /** Those that are not tasks. */
  readonly invalid: number
  /** Changes when the file does. */
  readonly version: string
}

/** Called with every line that is not a task. */
export type OnRefusal = (refusal: Refusal) => void

/** The lines of an input that are not blank, parsed, up to the limit. Throws `ERR_FILE_ACCESS`, `ERR_ABORTED`. */
export async function* parsedLines(options: InputOptions): AsyncGenerator<BatchTask | Refusal, void, undefined> {
  const { input, limit = Infinity, maxLineBytes, signal } = options
  let left = limit
  const isWanted = (line: Line): boolean => !isBlank(line) && left-- > 0
  for await (const lines of readLines(input, maxLineBytes, signal)) {
    for (const line of lines) if (isWanted(line)) yield parseLine(line)
    if (left <= 0) return
  }
}

/** Throws `ERR_BATCH_INPUT` for an id that is there twice, `ERR_FILE_ACCESS`, `ERR_ARGUMENT`, `ERR_ABORTED`. */
export async function survey(options: InputOptions, onRefusal: OnRefusal = () => undefined): Promise<Survey> {
  const { input, limit, onChecked } = options
  if (limit !== undefined && !(Number.isSafeInteger(limit) && limit >= 0)) {
    throw new TandemError('ERR_ARGUMENT', `limit: must be a whole number from 0, not ${limit}`)
  }
  const version = await versionOf(input)
  const ids = new IdTable()
  let invalid = 0
  for await (const parsed of parsedLines(options)) {
    const earlier = ids.add(keyOf(parsed), parsed.line)
    if (earlier !== undefined) {
      const id = JSON.stringify(parsed.id)
      throw new TandemError(
        'ERR_BATCH_INPUT',
        `${input}: the id ${id} of line ${parsed.line} is that of line ${earlier} already; nothing was done`,
      )
    }
    onChecked?.(ids.size)
    if (!isRefusal(parsed)) continue
    invalid++
    onRefusal(parsed)
  }
  return { ids, lines: ids.size, invalid, version }
}

/** Size and time of a file. Throws `ERR_FILE_ACCESS`, also when it is not a regular one: it is read twice. */
export async function versionOf(path: string): Promise<string> {
  return access(path, async () => {
    const file: FileHandle = await open(path, 'r')
    try {
      const stats = await file.stat()
      if (!stats.isFile()) throw new TandemError('ERR_FILE_ACCESS', `${path}: not a regular file; the input is read twice`)
      return `${stats.size} ${stats.mtimeMs}`
    } finally {
      await file.close()
    }
  })
}
