/** Which files make up a model: by the metadata `split.*` and by the names `NAME-00001-of-00003.gguf` that go with it. */
import { readdir } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { TandemError } from '../errors.ts'
import { access } from './reader.ts'
import type { GgufFile } from './reader.ts'

const SHARD_NAME = /^(.*)-(\d{5})-of-(\d{5})\.gguf$/

/** A shard's name taken apart; `number` counts from 1. */
export interface ShardName {
  readonly prefix: string
  readonly number: number
  readonly count: number
}

/** Parses a shard's file name, or returns undefined for any other name. */
export function parseShardName(path: string): ShardName | undefined {
  const match = SHARD_NAME.exec(basename(path))
  if (match === null) return undefined
  return { prefix: match[1]!, number: Number(match[2]), count: Number(match[3]) }
}

/** The file name of a shard; `number` counts from 1. */
export function shardName(prefix: string, number: number, count: number): string {
  const digits = (value: number): string => String(value).padStart(5, '0')
  return `${prefix}-${digits(number)}-of-${digits(count)}.gguf`
}

/** How many files the model has, by the metadata of one of them. Throws `ERR_GGUF_SHARD` when name and metadata disagree. */
export function shardCount(file: GgufFile): number {
  const stated = file.metadata.get('split.count') ?? 0
  const name = parseShardName(file.path)
  if (typeof stated !== 'number' || !Number.isInteger(stated) || stated < 0) {
    throw new TandemError('ERR_GGUF_SHARD', `${file.path}: split.count is not a count; split the model again`)
  }
  const count = Math.max(1, stated)
  if (count > 1 && name === undefined) {
    throw new TandemError(
      'ERR_GGUF_SHARD',
      `${file.path}: one of ${count} shards, but its name does not say which; name the shards NAME-00001-of-${String(count).padStart(5, '0')}.gguf`,
    )
  }
  if (name !== undefined && name.count !== count) {
    throw new TandemError(
      'ERR_GGUF_SHARD',
      `${file.path}: named as one of ${name.count} shards, but its metadata says ${count}; restore its name`,
    )
  }
  return count
}

/** Checks that `file` is shard `index` (from 0) of `count`. Throws `ERR_GGUF_SHARD`. */
export function checkShard(file: GgufFile, index: number, count: number): void {
  const number = file.metadata.get('split.no')
  const stated = file.metadata.get('split.count')
  if (number !== index || stated !== count) {
    throw new TandemError(
      'ERR_GGUF_SHARD',
      `${file.path}: should be shard ${index} of ${count} (from 0), but split.no is ${String(number)} and split.count ${String(stated)}; ` +
        'it belongs to another model or was renamed',
    )
  }
}

/** The one model in a directory: its single file, or its first shard. Throws `ERR_FILE_ACCESS` for none or several. */
export async function modelInDirectory(directory: string): Promise<string> {
  const names = (await access(directory, () => readdir(directory))).filter((name) => name.endsWith('.gguf')).sort()
  const models = new Map<string, string>()
  for (const name of names) {
    const shard = parseShardName(name)
    const key = shard === undefined ? name : `${shard.prefix}/${shard.count}`
    if (!models.has(key)) models.set(key, name)
  }
  const [first, ...others] = models.values()
  if (first === undefined) throw new TandemError('ERR_FILE_ACCESS', `${directory}: the directory holds no .gguf file`)
  if (others.length > 0) {
    const listed = [...models.values()].slice(0, 5).join(', ')
    throw new TandemError(
      'ERR_FILE_ACCESS',
      `${directory}: the directory holds ${models.size} models (${listed}${models.size > 5 ? ', ...' : ''}); give the path of one`,
    )
  }
  return join(directory, first)
}

/** Paths of all shards, in order, given the path of any. */
export function siblingPaths(path: string, count: number): string[] {
  const name = parseShardName(path)
  if (name === undefined) return [path]
  return Array.from({ length: count }, (_, index) => join(dirname(path), shardName(name.prefix, index + 1, count)))
}
