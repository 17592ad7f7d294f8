/** Reads the key-value pairs of a GGUF header. Every count and length is checked against the limits and the file before it is used. */
import { TandemError } from '../errors.ts'
import type { Cursor } from './cursor.ts'
import { MIN_VALUE_BYTES, VALUE_TYPES } from './layout.ts'
import { MAX_ARRAY_DEPTH, MAX_KEY_BYTES, MAX_METADATA_ITEMS, MAX_STRING_BYTES, MAX_STRING_BYTES_TOTAL } from './limits.ts'
import type { MetadataValue } from './types.ts'

/** What a whole model (all shards) has used of the limits. */
export interface Budget {
  items: number
  stringBytes: number
}

/** Scalars by type id; `undefined` for strings and arrays. */
const SCALARS: readonly (((cursor: Cursor) => number | bigint) | undefined)[] = [
  (c) => c.u8(),
  (c) => c.i8(),
  (c) => c.u16(),
  (c) => c.i16(),
  (c) => c.u32(),
  (c) => c.i32(),
  (c) => c.f32(),
  (c) => c.u8(),
  undefined,
  undefined,
  (c) => c.u64(),
  (c) => c.i64(),
  (c) => c.f64(),
]

/** Elements converted between two looks at the buffer. */
const BATCH = 4096

/** Reads `count` pairs into a map. Throws `ERR_GGUF_LIMIT`, `ERR_GGUF_INVALID`, `ERR_GGUF_TRUNCATED`. */
export async function readMetadata(cursor: Cursor, count: number, budget: Budget): Promise<Map<string, MetadataValue>> {
  const metadata = new Map<string, MetadataValue>()
  for (let index = 0; index < count; index += 1) {
    const key = await readString(cursor, `metadata key ${index}`, MAX_KEY_BYTES, budget)
    if (key === '') throw invalid(cursor, `metadata key ${index} is empty`)
    if (metadata.has(key)) throw invalid(cursor, `the metadata key ${quote(key)} occurs twice`)
    const what = `the value of ${quote(key)}`
    await cursor.need(4, what)
    metadata.set(key, await readValue(cursor, cursor.u32(), what, 0, budget))
  }
  return metadata
}

/** Reads a string with its length. Throws as above. */
export async function readString(cursor: Cursor, what: string, maxBytes: number, budget: Budget): Promise<string> {
  if (!cursor.has(8)) await cursor.need(8, what)
  const bytes = cursor.u64()
  if (bytes > maxBytes) throw limit(cursor, `${what} claims ${bytes} bytes of text, at most ${maxBytes} are accepted`)
  const length = Number(bytes)
  budget.stringBytes += length
  if (budget.stringBytes > MAX_STRING_BYTES_TOTAL) {
    throw limit(cursor, `the header's strings take more than ${MAX_STRING_BYTES_TOTAL} bytes together`)
  }
  if (!cursor.has(length)) await cursor.need(length, what)
  return cursor.text(length)
}

async function readValue(cursor: Cursor, type: number, what: string, depth: number, budget: Budget): Promise<MetadataValue> {
  if (type === VALUE_TYPES.string) return readString(cursor, what, MAX_STRING_BYTES, budget)
  if (type === VALUE_TYPES.array) return readArray(cursor, what, depth, budget)
  const read = SCALARS[type]
  if (read === undefined) throw invalid(cursor, `${what} has the unknown type ${type}`)
  await cursor.need(MIN_VALUE_BYTES[type]!, what)
  return scalar(cursor, read(cursor), type, what)
}

async function readArray(cursor: Cursor, what: string, depth: number, budget: Budget): Promise<readonly MetadataValue[]> {
  if (depth >= MAX_ARRAY_DEPTH) throw limit(cursor, `${what} nests arrays deeper than ${MAX_ARRAY_DEPTH}`)
  await cursor.need(12, what)
  const type = cursor.u32()
  const claimed = cursor.u64()
  const minBytes = MIN_VALUE_BYTES[type]
  if (minBytes === undefined) throw invalid(cursor, `${what} is an array of the unknown type ${type}`)
  if (claimed > MAX_METADATA_ITEMS - budget.items) {
    throw limit(cursor, `${what} claims ${claimed} elements, at most ${MAX_METADATA_ITEMS} are accepted in all arrays together`)
  }
  const count = Number(claimed)
  budget.items += count
  if (count * minBytes > cursor.left) throw cursor.truncated(what, count * minBytes)

  // Grown as it fills: `new Array(count)` would reserve memory on the word of the file.
  const items: MetadataValue[] = []
  const read = SCALARS[type]
  if (read === undefined) {
    for (let index = 0; index < count; index += 1) {
      if (type === VALUE_TYPES.array) items.push(await readArray(cursor, `${what}[${index}]`, depth + 1, budget))
      else items.push(bufferedString(cursor, budget) ?? (await readString(cursor, what, MAX_STRING_BYTES, budget)))
    }
    return items
  }
  for (let index = 0; index < count;) {
    const end = Math.min(count, index + BATCH)
    await cursor.need((end - index) * minBytes, what)
    for (; index < end; index += 1) items.push(scalar(cursor, read(cursor), type, what))
  }
  return items
}

/** A string that lies in the buffer as a whole and breaks no limit; for all others `readString` decides. */
function bufferedString(cursor: Cursor, budget: Budget): string | undefined {
  const bytes = cursor.peekStringBytes()
  if (bytes === undefined || budget.stringBytes + bytes > MAX_STRING_BYTES_TOTAL) return undefined
  budget.stringBytes += bytes
  cursor.skip(8)
  return cursor.text(bytes)
}

function scalar(cursor: Cursor, value: number | bigint, type: number, what: string): MetadataValue {
  if (type !== VALUE_TYPES.bool) return value
  if (value === 0) return false
  if (value === 1) return true
  throw invalid(cursor, `${what} is a bool with the value ${value}`)
}

/** A name from the file, made safe and short enough for a message. */
export function quote(name: string): string {
  const text = JSON.stringify(name)
  return text.length <= 100 ? text : `${text.slice(0, 96)}..."`
}

/** `ERR_GGUF_INVALID` at a place in a file. */
export function invalid(cursor: Cursor, message: string): TandemError {
  return new TandemError('ERR_GGUF_INVALID', `${cursor.path}: ${message}; the file is damaged or was written wrongly`)
}

/** `ERR_GGUF_LIMIT` at a place in a file. */
export function limit(cursor: Cursor, message: string): TandemError {
  return new TandemError('ERR_GGUF_LIMIT', `${cursor.path}: ${message}; the file is damaged or not a model`)
}
