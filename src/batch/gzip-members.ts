/**
 * Gzip output that can be gone on with after a crash: a file of whole members (RFC 1952), each with its own size in an extra field, so that the
 * last whole one is found without decompressing. Every gzip program reads such a file as one text.
 *
 *     1f 8b 08 04 | time, flags, system | 8 | 'T' 'd' 4 | u32 bytes of the member | deflated data | crc32 | u32 bytes of the text
 */
import type { FileHandle } from 'node:fs/promises'
import { promisify } from 'node:util'
import { crc32, deflateRaw, inflateRaw } from 'node:zlib'

const deflate = promisify(deflateRaw)
const inflate: (data: Buffer, options: { maxOutputLength: number }) => Promise<Buffer> = promisify(inflateRaw)

const HEADER = Buffer.from([0x1f, 0x8b, 0x08, 0x04, 0, 0, 0, 0, 0, 0xff, 8, 0, 0x54, 0x64, 4, 0])
const HEADER_BYTES = HEADER.length + 4
const TRAILER_BYTES = 8
/** A damaged file must not make us take all memory. */
const MAX_TEXT_BYTES = 2 ** 30

/** A member with a text. */
export async function encodeMember(text: Buffer): Promise<Buffer> {
  const data = await deflate(text)
  const sizes = Buffer.alloc(4 + TRAILER_BYTES)
  sizes.writeUInt32LE(HEADER_BYTES + data.length + TRAILER_BYTES, 0)
  sizes.writeUInt32LE(crc32(text), 4)
  sizes.writeUInt32LE(text.length, 8)
  return Buffer.concat([HEADER, sizes.subarray(0, 4), data, sizes.subarray(4)])
}

/** A whole member of a file. */
export interface Member {
  /** Offset of the byte behind it. */
  readonly end: number
  readonly text: Buffer
}

/** The whole members of a file from its start; ends at the first that is torn. Undefined: there is one that none of ours could be. */
export async function* readMembers(file: FileHandle): AsyncGenerator<Member | undefined, void, undefined> {
  const { size } = await file.stat()
  for (let begin = 0; begin < size;) {
    const header = await readExactly(file, begin, Math.min(HEADER_BYTES, size - begin))
    const expected = HEADER.subarray(0, Math.min(HEADER.length, header.length))
    // what a power failure leaves is zeros
    if (header.every((byte) => byte === 0)) return
    if (!header.subarray(0, expected.length).equals(expected)) {
      yield undefined
      return
    }
    const end = header.length < HEADER_BYTES ? Infinity : begin + header.readUInt32LE(HEADER.length)
    if (end > size || end < begin + HEADER_BYTES + TRAILER_BYTES) return
    const text = await decode(await readExactly(file, begin + HEADER_BYTES, end - begin - HEADER_BYTES))
    if (!text && end === size) return
    yield text && { end, text }
    if (!text) return
    begin = end
  }
}

/** The text of a member without its header; undefined when it is damaged. */
async function decode(body: Buffer): Promise<Buffer | undefined> {
  const trailer = body.length - TRAILER_BYTES
  try {
    const text = await inflate(body.subarray(0, trailer), { maxOutputLength: MAX_TEXT_BYTES })
    return crc32(text) === body.readUInt32LE(trailer) && text.length === body.readUInt32LE(trailer + 4) ? text : undefined
  } catch {
    return undefined
  }
}

async function readExactly(file: FileHandle, position: number, bytes: number): Promise<Buffer> {
  const buffer = Buffer.alloc(bytes)
  let filled = 0
  while (filled < bytes) {
    const { bytesRead } = await file.read(buffer, filled, bytes - filled, position + filled)
    if (bytesRead === 0) break
    filled += bytesRead
  }
  return buffer.subarray(0, filled)
}
