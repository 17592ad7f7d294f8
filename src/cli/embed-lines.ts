/** Texts in, their embeddings out: in order, as many at a time as there is room for, and with no more than a few of them in memory. */
import type { LineError } from '../batch/answerer.ts'
import { isBlank } from '../batch/parse-line.ts'
import { Lanes } from '../batch/lanes.ts'
import type { Line } from '../batch/lines.ts'
import { TASK_ERRORS } from '../batch/task.ts'
import type { EmbedOptions } from '../engine/embed.ts'
import type { Engine } from '../engine/engine.ts'
import { type ErrorCode, TandemError } from '../errors.ts'

/** Where an embedding goes. */
interface Address {
  /** The line's own, or else its number; null when it cannot be told. */
  readonly id: string | number | null
  readonly line: number
  /** Offset of the byte behind it. */
  readonly end: number
}

/** A text to embed, or why a line has none. */
export type EmbedItem = Address & ({ readonly text: string } | { readonly problem: string })

/** What became of it. */
export type Embedded = Address & ({ readonly tokens: number; readonly vector: Float32Array } | { readonly error: LineError })

const isId = (id: unknown): id is string | number => (typeof id === 'string' && id !== '') || Number.isSafeInteger(id)

/** The text of a line of JSON: `{"id","text"}`, the id may be left out, or a text alone. */
function parseJson(text: string, { line, end }: Omit<Address, 'id'>): EmbedItem {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    return { id: null, line, end, problem: `not JSON: ${(error as Error).message.replace(/ \(line \d+ column \d+\)$/, '')}` }
  }
  if (typeof value === 'string') return { id: line, line, end, text: value }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    return { id: null, line, end, problem: 'must be a text, or an object with "id" and "text"' }
  const { id = line, text: own } = value as { id?: unknown; text?: unknown }
  if (!isId(id)) return { id: null, line, end, problem: 'id: must be a text or a whole number' }
  return typeof own === 'string' ? { id, line, end, text: own } : { id, line, end, problem: 'text: must be a text' }
}

/** The texts of lines that are not blank. `isJson`: each is JSON, and not the text itself. */
export async function* parseLines(lines: AsyncIterable<readonly Line[]>, isJson: boolean): AsyncGenerator<EmbedItem, void, undefined> {
  for await (const some of lines) {
    for (const each of some) {
      const { number: line, text, problem = 'cannot be read', end } = each
      if (isBlank(each)) continue
      if (text === undefined) yield { id: isJson ? null : line, line, end, problem }
      else yield isJson ? parseJson(text, { line, end }) : { id: line, line, end, text: text.replace(/\r$/, '') }
    }
  }
}

async function embedItem(engine: Engine, item: EmbedItem, options: EmbedOptions): Promise<Embedded> {
  const { id, line, end } = item
  const failed = (code: ErrorCode, message: string): Embedded => ({ id, line, end, error: { code, message } })
  if ('problem' in item) return failed('ERR_BATCH_LINE', item.problem)
  try {
    const tokens = engine.tokenizer.encode(item.text)
    if (tokens.length === 0) return failed('ERR_BATCH_LINE', 'the text is empty')
    const [vector] = await engine.embed([tokens], options)
    return { id, line, end, tokens: tokens.length, vector: vector! }
  } catch (error) {
    const { code, message } = TandemError.from(error)
    if (!TASK_ERRORS.has(code)) throw error
    return failed(code, message)
  }
}

/** How many may have been begun and not been taken, for each that is worked on: a long text must not keep the others waiting at once. */
const AHEAD = 4

/** The embeddings of items in their order. Errors of an item are its own; all others end it. Throws what the items throw, and failures of the engine. */
export async function* embedAll(
  engine: Engine,
  items: AsyncIterable<EmbedItem> | Iterable<EmbedItem>,
  options: EmbedOptions,
): AsyncGenerator<Embedded, void, undefined> {
  const { sequences } = engine.plan.limits
  const lanes = new Lanes(sequences)
  const begun: Promise<Embedded>[] = []
  try {
    for await (const item of items) {
      if (begun.length >= AHEAD * sequences) yield await begun.shift()!
      await lanes.enter()
      const embedded = embedItem(engine, item, options).finally(() => lanes.leave())
      // told when it is its turn
      embedded.catch(() => undefined)
      begun.push(embedded)
    }
    for (let next = begun.shift(); next; next = begun.shift()) yield await next
  } finally {
    await Promise.allSettled(begun)
  }
}
