/** Reads weights from a model's files, blocking: for threads that have nothing else to do. */
import { closeSync, openSync, readSync } from 'node:fs'
import { TandemError } from '../errors.ts'

/** A model's shards, each opened when it is first read. */
export class ShardFiles {
  readonly #paths: readonly string[]
  readonly #open = new Map<number, number>()

  constructor(paths: readonly string[]) {
    this.#paths = paths
  }

  /** Fills `target` from an offset of a shard. Throws `ERR_FILE_ACCESS`, `ERR_GGUF_TRUNCATED`. */
  read(shard: number, target: Uint8Array<SharedArrayBuffer>, offset: number): void {
    const path = this.#paths[shard]!
    try {
      const descriptor = this.#open.get(shard) ?? openSync(path, 'r')
      this.#open.set(shard, descriptor)
      for (let done = 0; done < target.length;) {
        const read = readSync(descriptor, target, done, target.length - done, offset + done)
        if (read === 0) throw new TandemError('ERR_GGUF_TRUNCATED', `${path} ended while its tensors were read; has it been changed?`)
        done += read
      }
    } catch (error) {
      throw TandemError.from(error, 'ERR_FILE_ACCESS')
    }
  }

  /** Closes what was opened. */
  close(): void {
    for (const descriptor of this.#open.values()) closeSync(descriptor)
  }
}
