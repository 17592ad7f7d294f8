/**
 * Reads a file's header front to back in bounded chunks. The caller asks for bytes with `need(n)` and then takes at most `n` bytes with
 * the synchronous readers, so that a vocabulary of 150,000 strings costs a few dozen awaits and not 150,000.
 */
import type { FileHandle } from 'node:fs/promises'
import { TandemError } from '../errors.ts'

/** Large enough that a header is a few dozen reads, small enough that the event loop turns often. */
const CHUNK_BYTES = 256 * 1024

/** A forward-only reader of little-endian values. Does not own the file handle. */
export class Cursor {
  readonly path: string
  readonly fileBytes: number
  readonly #handle: FileHandle
  readonly #signal: AbortSignal | undefined
  #buffer = Buffer.alloc(0)
  /** File offset of the buffer's first byte. */
  #base = 0
  #at = 0

  constructor(handle: FileHandle, path: string, fileBytes: number, signal?: AbortSignal) {
    this.#handle = handle
    this.path = path
    this.fileBytes = fileBytes
    this.#signal = signal
  }

  /** Offset of the next byte in the file. */
  get offset(): number {
    return this.#base + this.#at
  }

  /** Bytes between here and the end of the file. */
  get left(): number {
    return this.fileBytes - this.offset
  }

  /** True when `bytes` can be taken without waiting. */
  has(bytes: number): boolean {
    return this.#buffer.length - this.#at >= bytes
  }

  /**
   * Makes `bytes` available to the readers below.
   * Throws `ERR_GGUF_TRUNCATED` when the file ends before, `ERR_ABORTED`, `ERR_FILE_ACCESS`.
   */
  async need(bytes: number, what: string): Promise<void> {
    if (this.has(bytes)) return
    if (this.#signal?.aborted) throw new TandemError('ERR_ABORTED', `${this.path}: opening was aborted`)
    if (bytes > this.left) throw this.truncated(what, bytes)
    const rest = this.#buffer.subarray(this.#at)
    const wanted = Math.min(this.left, Math.max(bytes, CHUNK_BYTES))
    const next = Buffer.allocUnsafe(wanted)
    rest.copy(next)
    let filled = rest.length
    const base = this.offset
    while (filled < wanted) {
      const { bytesRead } = await this.#read(next, filled, wanted - filled, base + filled)
      // The file became shorter while we read it.
      if (bytesRead === 0) throw this.truncated(what, bytes)
      filled += bytesRead
    }
    this.#buffer = next
    this.#base = base
    this.#at = 0
  }

  u8(): number {
    return this.#buffer.readUInt8(this.#advance(1))
  }

  i8(): number {
    return this.#buffer.readInt8(this.#advance(1))
  }

  u16(): number {
    return this.#buffer.readUInt16LE(this.#advance(2))
  }

  i16(): number {
    return this.#buffer.readInt16LE(this.#advance(2))
  }

  u32(): number {
    return this.#buffer.readUInt32LE(this.#advance(4))
  }

  i32(): number {
    return this.#buffer.readInt32LE(this.#advance(4))
  }

  f32(): number {
    return this.#buffer.readFloatLE(this.#advance(4))
  }

  f64(): number {
    return this.#buffer.readDoubleLE(this.#advance(8))
  }

  /** A u64 as a number, or as a bigint when a number cannot hold it exactly. */
  u64(): number | bigint {
    const at = this.#advance(8)
    const high = this.#buffer.readUInt32LE(at + 4)
    if (high < 0x20_0000) return high * 0x1_0000_0000 + this.#buffer.readUInt32LE(at)
    return this.#buffer.readBigUInt64LE(at)
  }

  /** An i64, likewise. */
  i64(): number | bigint {
    const value = this.#buffer.readBigInt64LE(this.#advance(8))
    const number = Number(value)
    return Number.isSafeInteger(number) ? number : value
  }

  /** `bytes` bytes as UTF-8 text; invalid sequences become U+FFFD. */
  text(bytes: number): string {
    const at = this.#advance(bytes)
    return this.#buffer.toString('utf8', at, at + bytes)
  }

  /** The length of the string that starts here when all of it is in the buffer, so that it can be taken without waiting. */
  peekStringBytes(): number | undefined {
    if (!this.has(8) || this.#buffer.readUInt32LE(this.#at + 4) !== 0) return undefined
    const bytes = this.#buffer.readUInt32LE(this.#at)
    return this.has(8 + bytes) ? bytes : undefined
  }

  skip(bytes: number): void {
    this.#advance(bytes)
  }

  /** The error for a file that ends inside `what`. */
  truncated(what: string, bytes: number): TandemError {
    return new TandemError(
      'ERR_GGUF_TRUNCATED',
      `${this.path}: the file ends inside ${what}: ${bytes} bytes needed at offset ${this.offset}, ${Math.max(0, this.left)} left; ` +
        'download or copy it again',
    )
  }

  #advance(bytes: number): number {
    const at = this.#at
    // Node's readers check ranges too, but only against the buffer: this says that a caller forgot `need`.
    if (at + bytes > this.#buffer.length) throw new TandemError('ERR_INTERNAL', `cursor: ${bytes} bytes taken without need()`)
    this.#at = at + bytes
    return at
  }

  async #read(buffer: Buffer, at: number, length: number, position: number): Promise<{ bytesRead: number }> {
    try {
      return await this.#handle.read(buffer, at, length, position)
    } catch (cause) {
      throw new TandemError('ERR_FILE_ACCESS', `${this.path}: reading failed at offset ${position}: ${(cause as Error).message}`, { cause })
    }
  }
}
