/** Header and index of a sidecar, to bytes and back. What is read is not trusted: every number meets a limit before it is used. */
import { createHash } from 'node:crypto'
import type { FileHandle } from 'node:fs/promises'
import { TandemError } from '../errors.ts'
import { access } from '../gguf/reader.ts'
import {
  BYTE_ORDER,
  dataOffset,
  HEADER,
  HEADER_BYTES,
  MAX_INDEX_BYTES,
  type ShardIdentity,
  SIDECAR_MAGIC,
  SIDECAR_VERSION,
  type SidecarIndex,
} from './layout.ts'

/** What to do about a sidecar that cannot be used. */
export const WRITE_AGAIN = 'write it again with tandem repack --force'

/** `ERR_SIDECAR_INVALID` about a file. */
export const invalid = (path: string, what: string): TandemError =>
  new TandemError('ERR_SIDECAR_INVALID', `${path}: ${what}; ${WRITE_AGAIN}`)

/** `ERR_SIDECAR_STALE` about a file. */
export const stale = (path: string, what: string): TandemError => new TandemError('ERR_SIDECAR_STALE', `${path}: ${what}; ${WRITE_AGAIN}`)

const sha256 = (bytes: Uint8Array): Buffer => createHash('sha256').update(bytes).digest()

/** Header and index, padded to where the data begins. As long for any hashes. */
export function encodeIndex(index: SidecarIndex): Buffer {
  const text = Buffer.from(JSON.stringify(index))
  const bytes = Buffer.alloc(dataOffset(text.length))
  bytes.write(SIDECAR_MAGIC, 0, 'latin1')
  bytes.writeUInt32LE(SIDECAR_VERSION, HEADER.version)
  bytes.writeUInt32LE(BYTE_ORDER, HEADER.byteOrder)
  bytes.writeBigUInt64LE(BigInt(text.length), HEADER.indexBytes)
  sha256(text).copy(bytes, HEADER.indexHash)
  text.copy(bytes, HEADER_BYTES)
  return bytes
}

async function readBytes(handle: FileHandle, path: string, offset: number, bytes: number): Promise<Buffer> {
  const buffer = Buffer.alloc(bytes)
  for (let done = 0; done < bytes;) {
    const { bytesRead } = await access(path, () => handle.read(buffer, done, bytes - done, offset + done))
    if (bytesRead === 0) throw invalid(path, 'the file ends inside its index')
    done += bytesRead
  }
  return buffer
}

/** Bytes of the index, from a header that is all right. */
function checkHeader(header: Buffer, path: string): number {
  if (header.toString('latin1', 0, SIDECAR_MAGIC.length) !== SIDECAR_MAGIC) throw invalid(path, 'the file is not a repacked model')
  if (header.readUInt32LE(HEADER.byteOrder) !== BYTE_ORDER) throw invalid(path, 'the file has another byte order')
  const version = header.readUInt32LE(HEADER.version)
  if (version !== SIDECAR_VERSION) throw stale(path, `the file has version ${version}, this Tandem has version ${SIDECAR_VERSION}`)
  const bytes = header.readBigUInt64LE(HEADER.indexBytes)
  if (bytes > MAX_INDEX_BYTES) throw invalid(path, `the file claims an index of ${bytes} bytes, at most ${MAX_INDEX_BYTES} are accepted`)
  return Number(bytes)
}

const isHash = (value: unknown): value is string => typeof value === 'string' && /^[0-9a-f]{64}$/.test(value)
const isSize = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0
const isRecord = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null

const isShard = (value: unknown): value is ShardIdentity =>
  isRecord(value) &&
  isSize(value['bytes']) &&
  typeof value['modified'] === 'string' &&
  /^-?\d{1,20}$/.test(value['modified']) &&
  isHash(value['header']) &&
  isHash(value['content'])

/** Whether everything but the matrices, which are compared as a whole with what the model has, is what it should be. */
const isIndex = (value: unknown): value is SidecarIndex =>
  isRecord(value) &&
  isHash(value['panels']) &&
  isHash(value['data']) &&
  isSize(value['dataBytes']) &&
  Array.isArray(value['matrices']) &&
  Array.isArray(value['shards']) &&
  value['shards'].every(isShard)

/** Reads header and index. Throws `ERR_SIDECAR_INVALID`, `ERR_SIDECAR_STALE` for another version, `ERR_FILE_ACCESS`. */
export async function readIndex(handle: FileHandle, path: string, fileBytes: number): Promise<{ index: SidecarIndex; dataOffset: number }> {
  if (fileBytes < HEADER_BYTES) throw invalid(path, 'the file is not a repacked model')
  const header = await readBytes(handle, path, 0, HEADER_BYTES)
  const indexBytes = checkHeader(header, path)
  if (HEADER_BYTES + indexBytes > fileBytes) throw invalid(path, 'the file ends inside its index')
  const text = await readBytes(handle, path, HEADER_BYTES, indexBytes)
  if (!sha256(text).equals(header.subarray(HEADER.indexHash, HEADER.indexHash + 32))) {
    throw invalid(path, 'the index does not have the checksum that it should have: the file is damaged')
  }
  const index = parse(text)
  if (!isIndex(index)) throw invalid(path, 'the index lacks something or contradicts itself')
  return { index, dataOffset: dataOffset(indexBytes) }
}

/** Undefined for what is not JSON. */
function parse(text: Buffer): unknown {
  try {
    return JSON.parse(text.toString('utf8'))
  } catch {
    return undefined
  }
}
