/**
 * The output of a job: whole lines are appended, what is torn is cut off, and what is there already is read before.
 *
 *     open --existing()--> lines of earlier runs; the rest of a torn line is cut off --append()...--> close()
 *
 * A line is written in one piece together with others that wait; when writing fails, the file is cut back to its last whole line. Data is
 * handed to the system at once, so that nothing is lost when the process dies, and to the disk every second.
 */
import { constants, type Stats } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { TandemError } from '../errors.ts'
import { access } from '../gguf/reader.ts'
import { encodeMember, readMembers } from './gzip-members.ts'
import { isGzip, type Line, splitLines } from './lines.ts'

const SYNC_MS = 1000
/** Lines are gathered this long, or until there is so much, to be compressed together. */
const MEMBER_MS = 1000
const MEMBER_BYTES = 1 << 18
/** More than this in the queue makes `append` wait. */
const QUEUE_BYTES = 1 << 22
const READ_BYTES = 1 << 18
/** Those who ask for what they appended to be on the disk wait this long for each other. */
const SAVE_MS = 200

/** See the file's header. */
export class OutputFile {
  readonly path: string
  readonly #file: FileHandle
  readonly #isRegular: boolean
  readonly #isGzip: boolean
  /** End of the last whole line; of a device undefined. */
  #committed = 0
  #queue: string[] = []
  #queuedBytes = 0
  #pump: Promise<void> | undefined
  #isClosing = false
  #hurry: (() => void) | undefined
  #failure: TandemError | undefined
  #syncedAt = performance.now()
  #isDirty = false
  #saving: Promise<void> | undefined

  private constructor(path: string, file: FileHandle, stats: Stats) {
    this.path = path
    this.#file = file
    this.#isRegular = stats.isFile()
    this.#isGzip = isGzip(path)
  }

  /** Opens or makes the file. Throws `ERR_FILE_ACCESS`. */
  static async open(path: string): Promise<OutputFile> {
    return access(path, async () => {
      const file = await open(path, constants.O_RDWR | constants.O_CREAT)
      return new OutputFile(path, file, await file.stat())
    })
  }

  /** Why nothing can be written any more. */
  get failure(): TandemError | undefined {
    return this.#failure
  }

  /** The whole lines that are there; must be read to the end before the first `append`. Throws `ERR_FILE_ACCESS`, `ERR_BATCH_OUTPUT`. */
  async *existing(): AsyncGenerator<readonly Line[], void, undefined> {
    if (!this.#isRegular) return
    for await (const lines of splitLines(this.#isGzip ? this.#members() : this.#chunks())) {
      const whole = lines.filter((line) => line.isWhole)
      if (!this.#isGzip) this.#committed = whole.at(-1)?.end ?? this.#committed
      yield whole
    }
    await access(this.path, () => this.#file.truncate(this.#committed))
  }

  /** Appends a line. Resolves when there is room for more; rejects with `ERR_FILE_ACCESS` when writing has failed. */
  async append(line: string): Promise<void> {
    if (this.#failure) throw this.#failure
    this.#queue.push(`${line}\n`)
    this.#queuedBytes += line.length
    this.#pump ??= this.#run()
    if (this.#queuedBytes < (this.#isGzip ? MEMBER_BYTES : QUEUE_BYTES)) return
    this.#hurry?.()
    await this.#pump
    if (this.#failure) throw this.#failure
  }

  /** Resolves when everything that was appended before is on the disk; who asks at about the same time waits together. Rejects as `append`. */
  saved(): Promise<void> {
    return (this.#saving ??= this.#save())
  }

  async #save(): Promise<void> {
    await sleep(SAVE_MS)
    // who comes from here on is not sure to be written
    this.#saving = undefined
    this.#hurry?.()
    await this.#pump
    if (this.#failure) throw this.#failure
    await access(this.path, () => this.#sync())
  }

  /** Writes what is left and closes. Rejects with `ERR_FILE_ACCESS` when anything could not be written. */
  async close(): Promise<void> {
    this.#isClosing = true
    this.#hurry?.()
    await this.#pump
    try {
      if (!this.#failure) await access(this.path, () => this.#sync())
    } finally {
      await this.#file.close()
    }
    if (this.#failure) throw this.#failure
  }

  /** Writes until the queue is empty. */
  async #run(): Promise<void> {
    try {
      while (this.#queue.length > 0) {
        if (this.#isGzip) await this.#gather()
        const text = Buffer.from(this.#queue.join(''))
        this.#queue = []
        this.#queuedBytes = 0
        await access(this.path, async () => this.#write(this.#isGzip ? await encodeMember(text) : text))
      }
    } catch (error) {
      this.#failure = TandemError.from(error, 'ERR_FILE_ACCESS')
      // a device cannot be cut, and needs not
      await this.#file.truncate(this.#committed).catch(() => undefined)
    } finally {
      this.#pump = undefined
    }
  }

  /** Waits for more lines, unless there are enough or there will be none. */
  async #gather(): Promise<void> {
    if (this.#isClosing || this.#queuedBytes >= MEMBER_BYTES) return
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, MEMBER_MS)
      this.#hurry = () => {
        clearTimeout(timer)
        resolve()
      }
    })
    this.#hurry = undefined
  }

  async #write(bytes: Buffer): Promise<void> {
    let written = 0
    try {
      while (written < bytes.length) {
        const position = this.#isRegular ? this.#committed + written : null
        written += (await this.#file.write(bytes, written, bytes.length - written, position)).bytesWritten
      }
    } finally {
      // a member that is not whole is worth nothing, of several lines the first ones are
      if (written === bytes.length) this.#committed += written
      else if (!this.#isGzip) this.#committed += bytes.subarray(0, written).lastIndexOf('\n') + 1
    }
    this.#isDirty = true
    if (performance.now() - this.#syncedAt >= SYNC_MS) await this.#sync()
  }

  async #sync(): Promise<void> {
    if (this.#isDirty && this.#isRegular) await this.#file.datasync()
    this.#isDirty = false
    this.#syncedAt = performance.now()
  }

  async *#chunks(): AsyncGenerator<Buffer, void, undefined> {
    for (let position = 0; ;) {
      const buffer = Buffer.alloc(READ_BYTES)
      const { bytesRead } = await access(this.path, () => this.#file.read(buffer, 0, READ_BYTES, position))
      if (bytesRead === 0) return
      position += bytesRead
      yield buffer.subarray(0, bytesRead)
    }
  }

  async *#members(): AsyncGenerator<Buffer, void, undefined> {
    for await (const member of readMembers(this.#file)) {
      if (!member) {
        const advice = 'gunzip it and go on without .gz, or choose another output'
        throw new TandemError('ERR_BATCH_OUTPUT', `${this.path}: is damaged, or was not compressed by tandem batch; ${advice}`)
      }
      this.#committed = member.end
      yield member.text
    }
  }
}
