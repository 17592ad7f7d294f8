/** Opens a GGUF model, whether it is one file, the shards of a split one, or a directory that holds either. */
import type { Stats } from 'node:fs'
import { readdir, stat } from 'node:fs/promises'
import { basename, dirname } from 'node:path'
import { TandemError } from '../errors.ts'
import { MAX_TENSORS } from './limits.ts'
import { quote } from './metadata.ts'
import type { Budget } from './metadata.ts'
import { access, readGguf } from './reader.ts'
import type { GgufFile } from './reader.ts'
import { checkShard, modelInDirectory, shardCount, siblingPaths } from './shards.ts'
import type { ModelFile, TensorInfo } from './types.ts'

/**
 * Reads and checks the headers of a model. `path` is a `.gguf` file, any shard of a split model, or a directory with one model in it.
 * Reads no tensor data and keeps no file open. The bytes are not trusted: sizes and counts are checked before anything is allocated.
 *
 * Throws `ERR_FILE_ACCESS`, `ERR_GGUF_MAGIC`, `ERR_GGUF_VERSION`, `ERR_GGUF_TRUNCATED`, `ERR_GGUF_LIMIT`, `ERR_GGUF_INVALID`,
 * `ERR_GGUF_SHARD`, `ERR_FORMAT_UNSUPPORTED`, and `ERR_ABORTED` when `signal` fires.
 * Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 */
export async function openModelFile(path: string, options: { readonly signal?: AbortSignal } = {}): Promise<ModelFile> {
  const { signal } = options
  if (signal?.aborted) throw new TandemError('ERR_ABORTED', `${path}: opening was aborted`)
  const isDirectory = (await statModel(path)).isDirectory()
  const given = isDirectory ? await modelInDirectory(path) : path
  // One budget for all shards: limits are per model.
  const budget: Budget = { items: 0, stringBytes: 0 }
  const file = await readGguf(given, 0, budget, signal)
  const count = shardCount(file)
  if (count === 1) return merge([file])

  const files: GgufFile[] = []
  for (const [index, sibling] of siblingPaths(given, count).entries()) {
    // The given shard is read again only if it is not the first: tensors carry the shard's index.
    const shard = index === 0 && basename(sibling) === basename(given) ? file : await readShard(sibling, index, count, budget, signal)
    checkShard(shard, index, count)
    files.push(shard)
  }
  checkTotal(files)
  return merge(files)
}

/** Names that a message has room for. */
const SHOWN_NAMES = 3

/** A path that is not there may be misspelt: the message says what is. */
async function statModel(path: string): Promise<Stats> {
  try {
    return await access(path, () => stat(path))
  } catch (error) {
    const { cause, message } = TandemError.from(error)
    if ((cause as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    const names = (await readdir(dirname(path)).catch(() => [])).filter((name) => name.endsWith('.gguf')).sort()
    if (names.length === 0) throw error
    const more = names.length > SHOWN_NAMES ? `, and ${names.length - SHOWN_NAMES} more` : ''
    throw new TandemError('ERR_FILE_ACCESS', `${message}: its directory has ${names.slice(0, SHOWN_NAMES).join(', ')}${more}`, { cause })
  }
}

async function readShard(path: string, index: number, count: number, budget: Budget, signal?: AbortSignal): Promise<GgufFile> {
  try {
    return await readGguf(path, index, budget, signal)
  } catch (error) {
    if ((TandemError.from(error).cause as NodeJS.ErrnoException | undefined)?.code !== 'ENOENT') throw error
    throw new TandemError('ERR_GGUF_SHARD', `${path}: shard ${index + 1} of ${count} is missing; put all shards into one directory`, {
      cause: error,
    })
  }
}

function checkTotal(files: readonly GgufFile[]): void {
  const total = files.reduce((sum, file) => sum + file.tensors.length, 0)
  const stated = files[0]!.metadata.get('split.tensors.count')
  if (stated !== undefined && stated !== total) {
    throw new TandemError(
      'ERR_GGUF_SHARD',
      `${files[0]!.path}: the model should have ${String(stated)} tensors (split.tensors.count), its shards hold ${total}; download it again`,
    )
  }
  if (total > MAX_TENSORS) {
    throw new TandemError('ERR_GGUF_LIMIT', `${files[0]!.path}: the shards hold ${total} tensors, at most ${MAX_TENSORS} are accepted`)
  }
}

/** The first shard's metadata describes the model; the others repeat parts of it. */
function merge(files: readonly GgufFile[]): ModelFile {
  const first = files[0]!
  const tensors = new Map<string, TensorInfo>()
  for (const file of files) {
    for (const tensor of file.tensors) {
      if (tensors.has(tensor.name)) {
        throw new TandemError(
          'ERR_GGUF_INVALID',
          `${file.path}: the tensor ${quote(tensor.name)} occurs twice; the file was written wrongly`,
        )
      }
      tensors.set(tensor.name, tensor)
    }
  }
  return {
    paths: files.map((file) => file.path),
    version: first.version,
    metadata: first.metadata,
    tensors,
    bytes: files.reduce((sum, file) => sum + file.bytes, 0),
  }
}
