/** A model loaded through its sidecar computes what it computes without, to the bit. */
import { writeFile } from 'node:fs/promises'
import { afterEach, describe, expect, test } from 'vitest'
import { loadModel } from '../../../src/load.ts'
import { executorOptions, type LoadOptions, planModel } from '../../../src/engine/load-model.ts'
import { Engine } from '../../../src/engine/engine.ts'
import { openSidecar } from '../../../src/sidecar/open.ts'
import { panelsOf } from '../../../src/sidecar/panels.ts'
import { writeSidecar } from '../../../src/sidecar/write.ts'
import { startWasmExecutor } from '../../../src/wasm/executor.ts'
import { encodeGguf, splitSpec, temporaryDirectory, tinyGlm4moe } from '../../fixtures/build-gguf.ts'
import { allLogits, SMALL, someTokens } from '../../fixtures/engine-micro.ts'
import { isMapped, modelAt, packedMicroModel } from '../../fixtures/sidecar-models.ts'

const isLinux = process.platform === 'linux'
const TOKENS = someTokens(40)

/** Logits of every position through an engine of its own. */
async function logitsOf(path: string, options: LoadOptions, check?: () => void): Promise<Float32Array[]> {
  const engine = await loadModel(path, options)
  try {
    check?.()
    return await allLogits(engine, TOKENS)
  } finally {
    await engine.close()
  }
}

/** What a plan takes from a sidecar, in bytes by how. */
async function takes(path: string, options: LoadOptions, canMap = true): Promise<{ maps: number; copies: number; arenas: number }> {
  const { model, plan } = await planModel(path, options)
  const sidecar = await openSidecar(model, 'auto')
  const { panels } = await panelsOf(sidecar, plan.wasm!, canMap)
  await sidecar.close()
  const sum = (ranges: readonly { bytes: number }[]): number => ranges.reduce((total, { bytes }) => total + bytes, 0)
  return { maps: sum(panels.maps), copies: sum(panels.copies), arenas: plan.wasm!.arenas.length }
}

let own: AsyncDisposable | undefined
afterEach(async () => {
  await own?.[Symbol.asyncDispose]()
  own = undefined
})

describe('the same logits', () => {
  test.each(['Q4_0', 'Q6_K', 'MXFP4', 'BF16'] as const)('experts in %s', async (expertFormat) => {
    const model = await packedMicroModel({ expertFormat })
    own = model
    const expected = await logitsOf(model.path, SMALL)
    const found = await logitsOf(model.path, { ...SMALL, sidecar: 'auto' }, () => {
      if (isLinux) expect(isMapped(model.sidecar)).toBe(true)
    })
    expect(found).toEqual(expected)
    expect(await logitsOf(model.path, { ...SMALL, sidecar: model.sidecar, threads: 1 })).toEqual(expected)
  })

  test('several arenas, and ranges of experts that begin inside a page', async () => {
    // 34,816 bytes an expert: eight and a half pages
    const model = await packedMicroModel({ expertFormat: 'MXFP4' })
    own = model
    const whole = (await planModel(model.path, SMALL)).plan.wasm!
    const expected = await logitsOf(model.path, SMALL)
    let mixed = 0
    for (let room = 1_300_000; room < 1_900_000; room += 65_536) {
      const options = { ...SMALL, arenaBytes: whole.arena.end + room }
      const { arenas, maps, copies } = await takes(model.path, options)
      if (maps === 0 || copies === 0) continue
      expect(arenas).toBeGreaterThan(1)
      expect(await logitsOf(model.path, { ...options, sidecar: 'auto' })).toEqual(expected)
      mixed++
    }
    expect(mixed).toBeGreaterThan(2)
  })

  test('where nothing can be mapped, everything is read', async () => {
    const model = await packedMicroModel()
    own = model
    const mapped = await takes(model.path, SMALL)
    expect(await takes(model.path, SMALL, false)).toEqual({ ...mapped, maps: 0, copies: mapped.maps + mapped.copies })
    const planned = await planModel(model.path, SMALL)
    const sidecar = await openSidecar(planned.model, 'auto')
    const executor = await startWasmExecutor(executorOptions(planned, SMALL, await panelsOf(sidecar, planned.plan.wasm!, false)))
    await sidecar.close()
    const engine = new Engine({ ...planned, executor })
    const found = await allLogits(engine, TOKENS)
    await engine.close()
    expect(found).toEqual(await logitsOf(model.path, SMALL))
  })

  test('shards', async () => {
    const directory = await temporaryDirectory()
    own = directory
    const parts = splitSpec(tinyGlm4moe({ vocabulary: 4000 }), 2)
    for (const [index, part] of parts.entries()) {
      await writeFile(`${directory.path}/tiny-0000${index + 1}-of-00002.gguf`, encodeGguf(part))
    }
    const path = `${directory.path}/tiny-00002-of-00002.gguf`
    const { path: sidecar, matrices } = await writeSidecar(await modelAt(path), 'auto')
    expect(sidecar).toBe(`${directory.path}/tiny-00001-of-00002.gguf.tandem`)
    expect(matrices).toBe(2)
    const engines = await Promise.all([undefined, 'auto'].map((each) => loadModel(path, { ...SMALL, sidecar: each })))
    const [expected, found] = await Promise.all(engines.map((engine) => allLogits(engine, [1, 2, 3])))
    await Promise.all(engines.map((engine) => engine.close()))
    expect(found).toEqual(expected)
  })

  test('a model so small that its sidecar holds nothing', async () => {
    const directory = await temporaryDirectory()
    own = directory
    const path = await directory.write('tiny.gguf', encodeGguf(tinyGlm4moe()))
    expect((await writeSidecar(await modelAt(path), 'auto')).matrices).toBe(0)
    const engine = await loadModel(path, { ...SMALL, sidecar: 'auto' })
    expect(await allLogits(engine, [1, 2, 3])).toHaveLength(3)
    await engine.close()
  })
})

test('the sidecar may be replaced or removed while an engine has it mapped', async () => {
  const model = await packedMicroModel()
  own = model
  const expected = await logitsOf(model.path, SMALL)
  const engine = await loadModel(model.path, { ...SMALL, sidecar: 'auto' })
  await writeSidecar(await modelAt(model.path), 'auto')
  expect(await allLogits(engine, TOKENS)).toEqual(expected)
  await engine.close()
})

test('progress counts what is read, and ends at its total', async () => {
  const model = await packedMicroModel()
  own = model
  const progress: { phase: string; done: number; total: number }[] = []
  const options = { ...SMALL, sidecar: 'auto', onProgress: (each: (typeof progress)[number]) => void progress.push(each) }
  await (await loadModel(model.path, options)).close()
  expect(progress.at(-1)).toMatchObject({ phase: 'load', done: progress.at(-1)!.total })
  if (isLinux) expect(progress.at(-1)!.total).toBeLessThan(300_000)
})
