/** A sidecar that is not the model's, or not whole, is refused with a code that says which; it is never left aside, and never believed. */
import { createHash } from 'node:crypto'
import { copyFile, open, readdir, readFile, rename, stat, truncate, utimes, writeFile } from 'node:fs/promises'
import { basename } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { loadModel } from '../../src/load.ts'
import type { LoadOptions, Progress } from '../../src/engine/load-model.ts'
import { openModelFile } from '../../src/gguf/open.ts'
import { encodeIndex, readIndex } from '../../src/sidecar/index-codec.ts'
import { HEADER, HEADER_BYTES, type SidecarIndex } from '../../src/sidecar/layout.ts'
import { verifySidecar } from '../../src/sidecar/verify.ts'
import { writeSidecar } from '../../src/sidecar/write.ts'
import { codeOf, SMALL } from '../fixtures/engine-micro.ts'
import { modelAt, packedMicroModel, type PackedMicroModel } from '../fixtures/sidecar-models.ts'

let model: PackedMicroModel
beforeEach(async () => {
  model = await packedMicroModel()
})
afterEach(() => model[Symbol.asyncDispose]())

/** Loads with the sidecar: the code that it fails with, or `loaded`. */
async function load(options: LoadOptions = {}): Promise<string> {
  try {
    await (await loadModel(model.path, { ...SMALL, sidecar: 'auto', ...options })).close()
    return 'loaded'
  } catch (error) {
    return (error as { code?: string }).code ?? 'no code'
  }
}

const verify = async (): Promise<string> => {
  const described = await modelAt(model.path)
  return verifySidecar(described, 'auto').then(
    () => 'verified',
    (error: { code?: string }) => error.code ?? 'no code',
  )
}

/** Changes bytes of a file and leaves its size and its time of change as they were. */
async function patch(path: string, at: number, bytes: Uint8Array): Promise<void> {
  const { atime, mtime } = await stat(path)
  const handle = await open(path, 'r+')
  await handle.write(bytes, 0, bytes.length, at)
  await handle.close()
  await utimes(path, atime, mtime)
}

/** Writes another index, of the same length and with the right checksum. */
async function replaceIndex(change: (index: SidecarIndex) => unknown): Promise<void> {
  const handle = await open(model.sidecar, 'r+')
  const { index, dataOffset } = await readIndex(handle, model.sidecar, (await handle.stat()).size)
  const changed = encodeIndex(change(structuredClone(index)) as SidecarIndex)
  expect(changed.length).toBe(dataOffset)
  await handle.write(changed, 0, changed.length, 0)
  await handle.close()
}

test('a sidecar that is all right', async () => {
  expect(await load()).toBe('loaded')
  expect(await verify()).toBe('verified')
})

describe('a model that has changed: ERR_SIDECAR_STALE', () => {
  test('its size', async () => {
    await writeFile(model.path, 'x', { flag: 'a' })
    expect(await load()).toBe('ERR_SIDECAR_STALE')
  })

  test('its header, at the same size and time', async () => {
    const at = (await readFile(model.path)).indexOf('synth-micro')
    await patch(model.path, at, Buffer.from('Synth'))
    expect(await load()).toBe('ERR_SIDECAR_STALE')
  })

  test('a weight, and therefore its time', async () => {
    const { offset } = (await openModelFile(model.path)).tensors.get('blk.1.ffn_up_exps.weight')!
    const handle = await open(model.path, 'r+')
    await handle.write(Buffer.of(0x2a), 0, 1, offset + 2)
    await handle.close()
    expect(await load()).toBe('ERR_SIDECAR_STALE')
  })

  test('a weight, with its old time: found by verifying alone', async () => {
    const then = new Date(1_700_000_000_000)
    await utimes(model.path, then, then)
    await writeSidecar(await modelAt(model.path), 'auto')
    const { offset } = (await openModelFile(model.path)).tensors.get('blk.1.ffn_up_exps.weight')!
    await patch(model.path, offset + 2, Buffer.of(0x2a))
    expect(await load()).toBe('loaded')
    expect(await verify()).toBe('ERR_SIDECAR_STALE')
  })

  test('nothing but its time: accepted after reading all of it', async () => {
    const now = new Date(1_700_000_000_000)
    await utimes(model.path, now, now)
    const verified: Progress[] = []
    expect(await load({ onProgress: (each) => void (each.phase === 'verify' && verified.push(each)) })).toBe('loaded')
    expect(verified.at(-1)).toMatchObject({ done: (await stat(model.path)).size, total: (await stat(model.path)).size })
  })

  test('the sidecar of another model', async () => {
    await using other = await packedMicroModel({ seed: 4 })
    await rename(other.sidecar, model.sidecar)
    expect(await load()).toBe('ERR_SIDECAR_STALE')
  })
})

describe('another version of Tandem: ERR_SIDECAR_STALE', () => {
  test('of the file', async () => {
    await patch(model.sidecar, HEADER.version, Buffer.of(2))
    expect(await load()).toBe('ERR_SIDECAR_STALE')
  })

  test('of the panels', async () => {
    await replaceIndex((index) => ({ ...index, panels: createHash('sha256').update('another').digest('hex') }))
    expect(await load()).toBe('ERR_SIDECAR_STALE')
    expect(await verify()).toBe('ERR_SIDECAR_STALE')
  })
})

describe('a damaged file: ERR_SIDECAR_INVALID', () => {
  test('truncated anywhere', async () => {
    const { size } = await stat(model.sidecar)
    for (const bytes of [size - 1, size - 4096, 5000, 4096, 1000, HEADER_BYTES, HEADER_BYTES - 1, 1, 0]) {
      await truncate(model.sidecar, bytes)
      expect(await load(), `${bytes} bytes`).toBe('ERR_SIDECAR_INVALID')
    }
  })

  test('longer than it should be', async () => {
    await writeFile(model.sidecar, 'x', { flag: 'a' })
    expect(await load()).toBe('ERR_SIDECAR_INVALID')
  })

  test('every byte of the header, and some of the index', async () => {
    const bytes = await readFile(model.sidecar)
    const used = HEADER.indexHash + 32
    for (const at of [...Array(used).keys(), HEADER_BYTES, HEADER_BYTES + 1, HEADER_BYTES + 700]) {
      await patch(model.sidecar, at, Buffer.of(bytes[at]! ^ 0x40))
      expect(['ERR_SIDECAR_INVALID', 'ERR_SIDECAR_STALE'], `byte ${at}`).toContain(await load())
      await patch(model.sidecar, at, bytes.subarray(at, at + 1))
    }
    expect(await load()).toBe('loaded')
  })

  test('panels: found by verifying alone', async () => {
    await patch(model.sidecar, (await stat(model.sidecar)).size - 5000, Buffer.of(1, 2, 3, 4, 5))
    expect(await load()).toBe('loaded')
    expect(await verify()).toBe('ERR_SIDECAR_INVALID')
  })

  test('something else', async () => {
    await copyFile(model.path, model.sidecar)
    expect(await load()).toBe('ERR_SIDECAR_INVALID')
  })
})

describe('an index with the right checksum that claims something else', () => {
  type Change = (index: SidecarIndex) => unknown
  const first =
    (change: Record<string, unknown>): Change =>
    (index) => ({ ...index, matrices: [{ ...index.matrices[0], ...change }, ...index.matrices.slice(1)] })
  const CHANGES: Record<string, Change> = {
    'an offset beyond the file': first({ offset: 9 }),
    'overlapping matrices': (index) => ({ ...index, matrices: index.matrices.map((each) => ({ ...each, offset: 0 })) }),
    'another size': first({ bytes: 3 }),
    'another format': first({ format: 'Q4_1' }),
    'more experts': first({ experts: 7 }),
    'a matrix less': (index) => ({ ...index, matrices: index.matrices.slice(1) }),
    'less data': (index) => ({ ...index, dataBytes: 1 }),
    'no shards': (index) => ({ ...index, shards: [] }),
    'a size that is text': (index) => ({ ...index, dataBytes: 'x' }),
    'no hash': (index) => ({ ...index, panels: '0' }),
    'no object': () => null,
  }
  test.each(Object.keys(CHANGES))('%s', async (name) => {
    await replaceIndex((index) => {
      const changed = CHANGES[name]!(index)
      // as long as before, so that nothing but the claim is wrong
      const missing = JSON.stringify(index).length - JSON.stringify(changed).length
      return changed && missing > 0 ? { ...changed, pad: 'x'.repeat(Math.max(0, missing - 9)) } : (changed ?? { pad: 'x'.repeat(missing) })
    })
    expect(['ERR_SIDECAR_INVALID', 'ERR_SIDECAR_STALE']).toContain(await load())
  })
})

describe('what is not there', () => {
  test('no sidecar: ERR_FILE_ACCESS, which names it and the command', async () => {
    const sidecar = `${model.directory}/none.tandem`
    await expect(loadModel(model.path, { ...SMALL, sidecar })).rejects.toMatchObject({
      code: 'ERR_FILE_ACCESS',
      message: expect.stringMatching(/none\.tandem.*tandem repack/) as string,
    })
    expect(await codeOf(loadModel(model.path, { ...SMALL, sidecar: model.directory }))).toBe('ERR_FILE_ACCESS')
  })

  test('without the option nothing is looked at', async () => {
    await writeFile(model.sidecar, 'not a sidecar')
    expect(await load({ sidecar: undefined })).toBe('loaded')
    expect(await readFile(model.sidecar, 'utf8')).toBe('not a sidecar')
  })
})

describe('writing', () => {
  test('gives the same bytes again', async () => {
    const before = await readFile(model.sidecar)
    await writeSidecar(await modelAt(model.path), 'auto')
    expect((await readFile(model.sidecar)).equals(before)).toBe(true)
  })

  test('over the model itself: ERR_ARGUMENT', async () => {
    expect(await codeOf(writeSidecar(await modelAt(model.path), model.path))).toBe('ERR_ARGUMENT')
  })

  test('aborted, or with a weight that is not finite: leaves what was there, and nothing else', async () => {
    const described = await modelAt(model.path)
    const before = await readFile(model.sidecar)
    const controller = new AbortController()
    const aborted = writeSidecar(described, 'auto', { signal: controller.signal, onProgress: () => controller.abort() })
    expect(await codeOf(aborted)).toBe('ERR_ABORTED')
    await patch(model.path, described.file.tensors.get('blk.1.ffn_up_exps.weight')!.offset, Buffer.of(0, 0x7e))
    expect(await codeOf(writeSidecar(described, 'auto'))).toBe('ERR_WEIGHT_NOT_FINITE')
    expect((await readFile(model.sidecar)).equals(before)).toBe(true)
    expect((await readdir(model.directory)).toSorted()).toEqual([basename(model.path), basename(model.sidecar)])
  })

  test('into a directory that is not there: ERR_FILE_ACCESS', async () => {
    expect(await codeOf(writeSidecar(await modelAt(model.path), `${model.directory}/no/where.tandem`))).toBe('ERR_FILE_ACCESS')
  })
})
