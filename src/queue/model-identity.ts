/** Which model a file is, whatever its name and machine. */
import { createHash } from 'node:crypto'
import { stat } from 'node:fs/promises'
import { openModelFile } from '../gguf/open.ts'
import { access } from '../gguf/reader.ts'
import { describeModel } from '../model/describe.ts'
import { hashBytes, identifyShards, withFile } from '../sidecar/identity.ts'
import { asName } from './keys.ts'

/** A model as producers and workers tell it from others. */
export interface ModelIdentity {
  /** Name and beginning of the digest, or what the user calls it. */
  readonly modelId: string
  /** Undefined: no file was named. */
  readonly digest: string | undefined
}

const SAMPLES = 16
const SAMPLE_BYTES = 4096
const SHOWN_DIGITS = 8

/**
 * SHA-256 over size, header and samples of every shard: models of one shape and different weights differ, and a file of any size is told within
 * milliseconds. Throws the codes of model files.
 */
export async function identifyModel(path: string, modelId?: string): Promise<ModelIdentity & { readonly digest: string }> {
  const file = await openModelFile(path)
  const hash = createHash('sha256')
  for (const { bytes, header } of await identifyShards(file)) hash.update(`${bytes} ${header}\n`)
  for (const shard of file.paths) hash.update(await samplesOf(shard))
  const digest = hash.digest('hex')
  return { modelId: modelId ?? `${asName(describeModel(file).name)}-${digest.slice(0, SHOWN_DIGITS)}`, digest }
}

/** Hashes of pieces that are as far from each other as from the ends. */
async function samplesOf(path: string): Promise<string> {
  const { size } = await access(path, () => stat(path))
  return withFile(path, async (handle) => {
    const digests: string[] = []
    for (let sample = 0; sample < SAMPLES; sample++) {
      const begin = Math.floor((size * (sample + 1)) / (SAMPLES + 1))
      digests.push(await hashBytes(handle, path, begin, begin + SAMPLE_BYTES))
    }
    return digests.join(' ')
  })
}
