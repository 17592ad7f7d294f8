/** Reads the tensor table of a GGUF header and checks that every tensor lies inside the file, aligned, and on its own. */
import { formatById, KNOWN_UNSUPPORTED_FORMATS, rowBytes } from '../abi/formats.ts'
import { TandemError } from '../errors.ts'
import type { Cursor } from './cursor.ts'
import { align } from './layout.ts'
import { DEFAULT_ALIGNMENT, MAX_ALIGNMENT, MAX_DIMENSIONS, MAX_TENSOR_NAME_BYTES } from './limits.ts'
import { invalid, limit, quote, readString } from './metadata.ts'
import type { Budget } from './metadata.ts'
import type { Metadata, MetadataValue, TensorInfo } from './types.ts'

/** A tensor with `offset` still relative to the start of the data. */
type Entry = TensorInfo

/** Reads `count` entries and checks them. Throws `ERR_GGUF_*`, `ERR_FORMAT_UNSUPPORTED`. */
export async function readTensors(cursor: Cursor, count: number, metadata: Metadata, shard: number, budget: Budget): Promise<TensorInfo[]> {
  const alignment = readAlignment(cursor, metadata)
  const entries: Entry[] = []
  for (let index = 0; index < count; index += 1) entries.push(await readEntry(cursor, index, shard, budget))
  const start = align(cursor.offset, alignment)
  return place(cursor, entries, start, alignment)
}

function readAlignment(cursor: Cursor, metadata: Metadata): number {
  const value = metadata.get('general.alignment') ?? DEFAULT_ALIGNMENT
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 1) {
    throw invalid(cursor, `general.alignment must be a power of two, not ${describe(value)}`)
  }
  if (value > MAX_ALIGNMENT) throw limit(cursor, `general.alignment is ${value} bytes, at most ${MAX_ALIGNMENT} are accepted`)
  if ((value & (value - 1)) !== 0) throw invalid(cursor, `general.alignment must be a power of two, not ${value}`)
  return value
}

async function readEntry(cursor: Cursor, index: number, shard: number, budget: Budget): Promise<Entry> {
  const name = await readString(cursor, `the name of tensor ${index}`, MAX_TENSOR_NAME_BYTES, budget)
  if (name === '') throw invalid(cursor, `tensor ${index} has no name`)
  const what = `the entry of tensor ${quote(name)}`
  await cursor.need(4, what)
  const dimensions = cursor.u32()
  if (dimensions < 1 || dimensions > MAX_DIMENSIONS) {
    throw limit(cursor, `tensor ${quote(name)} has ${dimensions} dimensions, 1 to ${MAX_DIMENSIONS} are possible`)
  }
  await cursor.need(dimensions * 8 + 12, what)
  const shape: number[] = []
  let elements = 1
  for (let axis = 0; axis < dimensions; axis += 1) {
    const length = cursor.u64()
    if (length < 1) throw invalid(cursor, `dimension ${axis} of tensor ${quote(name)} is 0`)
    elements *= Number(length)
    // Four bytes is the widest element: with this, `bytes` below is exact as well.
    if (!Number.isSafeInteger(elements * 4)) throw limit(cursor, `tensor ${quote(name)} has more elements than any file can hold`)
    shape.push(Number(length))
  }
  const id = cursor.u32()
  const offset = cursor.u64()
  const format = formatById(id)
  if (format === undefined) {
    const known = KNOWN_UNSUPPORTED_FORMATS.get(id)
    throw new TandemError(
      'ERR_FORMAT_UNSUPPORTED',
      `${cursor.path}: tensor ${quote(name)} has the format ${known === undefined ? `with the unknown id ${id}` : `${known} (id ${id})`}, ` +
        'which Tandem cannot read; use a file quantised to one of the formats in docs/models.md',
    )
  }
  const columns = shape[0]!
  if (columns % format.blockElements !== 0) {
    throw invalid(
      cursor,
      `a row of tensor ${quote(name)} has ${columns} elements, not a multiple of ${format.name}'s ${format.blockElements}`,
    )
  }
  if (typeof offset === 'bigint') throw limit(cursor, `tensor ${quote(name)} starts at offset ${offset}, beyond any file`)
  return { name, format: format.name, shape, bytes: rowBytes(format, columns) * (elements / columns), shard, offset }
}

function place(cursor: Cursor, entries: readonly Entry[], start: number, alignment: number): TensorInfo[] {
  const tensors = entries.map((entry) => {
    if (entry.offset % alignment !== 0) {
      throw invalid(
        cursor,
        `tensor ${quote(entry.name)} starts at data offset ${entry.offset}, not a multiple of the alignment ${alignment}`,
      )
    }
    const tensor = { ...entry, offset: start + entry.offset }
    if (tensor.offset + tensor.bytes > cursor.fileBytes) {
      throw new TandemError(
        'ERR_GGUF_TRUNCATED',
        `${cursor.path}: tensor ${quote(tensor.name)} takes bytes ${tensor.offset} to ${tensor.offset + tensor.bytes}, but the file has ` +
          `${cursor.fileBytes}; download or copy it again`,
      )
    }
    return tensor
  })
  const byOffset = [...tensors].sort((a, b) => a.offset - b.offset)
  for (const [index, tensor] of byOffset.entries()) {
    const before = byOffset[index - 1]
    if (before !== undefined && before.offset + before.bytes > tensor.offset) {
      throw invalid(cursor, `the data of tensors ${quote(before.name)} and ${quote(tensor.name)} overlap`)
    }
  }
  return tensors
}

function describe(value: MetadataValue): string {
  if (typeof value === 'object') return 'an array'
  return typeof value === 'string' ? quote(value) : String(value)
}
