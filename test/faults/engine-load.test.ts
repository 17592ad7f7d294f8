/** Loading that cannot succeed ends with one error that says why, and leaves no threads behind. */
import { open, truncate, unlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { loadModel } from '../../src/engine/load-model.ts'
import { openModelFile } from '../../src/gguf/open.ts'
import { startWasmExecutor } from '../../src/wasm/executor.ts'
import { encodeGguf, f32Tensor, temporaryDirectory, tinyGlm4moe } from '../fixtures/build-gguf.ts'
import { codeOf, executorParts, type MicroModel, microModel, SMALL } from '../fixtures/engine-micro.ts'

let model: MicroModel
beforeAll(async () => {
  model = await microModel()
})
afterAll(() => model[Symbol.asyncDispose]())

/** Overwrites bytes of a tensor. */
async function damage(path: string, tensor: string, at: number, bytes: readonly number[]): Promise<void> {
  const { offset } = (await openModelFile(path)).tensors.get(tensor)!
  const handle = await open(path, 'r+')
  await handle.write(Uint8Array.from(bytes), 0, bytes.length, offset + at)
  await handle.close()
}

describe('weights that are not finite', () => {
  const NAN = [0, 0x7e]
  const INFINITE = [0, 0x7c]
  test.each([
    { tensor: 'blk.1.ffn_up_exps.weight', what: 'a NaN scale of Q4_0', at: 18 * 77, bytes: NAN },
    { tensor: 'blk.2.attn_q.weight', what: 'an infinite scale of Q8_0', at: 34 * 5, bytes: INFINITE },
    { tensor: 'output.weight', what: 'a NaN scale in the last rows', at: 34 * 8 * 1023, bytes: NAN },
    { tensor: 'blk.1.ffn_gate_inp.weight', what: 'a NaN weight of F32', at: 4 * 100, bytes: [0, 0, 0xc0, 0x7f] },
    { tensor: 'blk.0.attn_norm.weight', what: 'an infinite norm', at: 4 * 255, bytes: [0, 0, 0x80, 0x7f] },
  ])('$what: ERR_WEIGHT_NOT_FINITE names $tensor', async ({ tensor, at, bytes }) => {
    await using own = await microModel()
    await damage(own.path, tensor, at, bytes)
    await expect(loadModel(own.path, SMALL)).rejects.toMatchObject({
      code: 'ERR_WEIGHT_NOT_FINITE',
      message: expect.stringContaining(tensor),
    })
  })

  test('logits that overflow although every weight is finite: ERR_NOT_FINITE', async () => {
    await using directory = await temporaryDirectory()
    const spec = tinyGlm4moe()
    const { name, shape } = spec.tensors.get('output.weight')!
    spec.tensors.set(
      name,
      f32Tensor(name, shape, () => 3e38),
    )
    await using engine = await loadModel(await directory.write('huge.gguf', encodeGguf(spec)), SMALL)
    await using session = engine.session()
    expect(await codeOf(session.sync([1, 2, 3]))).toBe('ERR_NOT_FINITE')
    expect(await codeOf(session.evaluate([1, 2, 3], () => undefined))).toBe('ERR_NOT_FINITE')
    expect(await codeOf(engine.generate([1, 2, 3]))).toBe('ERR_NOT_FINITE')
  })
})

describe('a file that changes between opening and loading', () => {
  test('truncated: ERR_GGUF_TRUNCATED', async () => {
    await using own = await microModel()
    const { start, model: described } = await executorParts(own.path, SMALL)
    await truncate(own.path, described.file.bytes >> 1)
    expect(await codeOf(startWasmExecutor(start))).toBe('ERR_GGUF_TRUNCATED')
  })

  test('removed: ERR_FILE_ACCESS', async () => {
    await using own = await microModel()
    const { start } = await executorParts(own.path, SMALL)
    await unlink(own.path)
    expect(await codeOf(startWasmExecutor(start))).toBe('ERR_FILE_ACCESS')
  })
})

describe('a caller who changes their mind', () => {
  test('before: nothing is opened', async () => {
    expect(await codeOf(loadModel('/there/is/no/such/file', { signal: AbortSignal.abort() }))).toBe('ERR_ABORTED')
  })

  test('while it loads, at the first or the last word of progress', async () => {
    for (const isTheOne of [(): boolean => true, (done: number, total: number): boolean => done === total]) {
      const controller = new AbortController()
      const reason = new Error('changed my mind')
      const loading = loadModel(model.path, {
        ...SMALL,
        signal: controller.signal,
        onProgress: ({ done, total }) => void (isTheOne(done, total) && controller.abort(reason)),
      })
      await expect(loading).rejects.toMatchObject({ code: 'ERR_ABORTED', cause: reason })
    }
  })

  test('by throwing in onProgress', async () => {
    const mine = new Error('mine')
    const loading = loadModel(model.path, {
      ...SMALL,
      onProgress: () => {
        throw mine
      },
    })
    await expect(loading).rejects.toBe(mine)
  })
})

describe('what cannot be loaded', () => {
  test.each([0, -1, Number.NaN])('a deadline of %d ms is refused', async (deadlineMs) => {
    expect(await codeOf(loadModel(model.path, { ...SMALL, deadlineMs }))).toBe('ERR_ARGUMENT')
  })

  test('a deadline too short to load: ERR_TIMEOUT', async () => {
    expect(await codeOf(loadModel(model.path, { ...SMALL, deadlineMs: 1e-6 }))).toBe('ERR_TIMEOUT')
  })

  test('pipelines for other devices: ERR_DEVICE_ABSENT', async () => {
    for (const pipeline of ['hybrid', 'gpu']) expect(await codeOf(loadModel(model.path, { pipeline }))).toBe('ERR_DEVICE_ABSENT')
  })

  test('a cache larger than memory: ERR_MEMORY or ERR_ARENA_LIMIT, before anything is taken', async () => {
    const code = await codeOf(loadModel(model.path, { contextTokens: 2048, sequences: 4096, ubatch: 8, outputs: 8, kvTokens: 2048 * 4096 }))
    expect(['ERR_MEMORY', 'ERR_ARENA_LIMIT']).toContain(code)
  })

  test('a file that is not there, or is something else', async () => {
    expect(await codeOf(loadModel(join(model.directory, 'absent.gguf')))).toBe('ERR_FILE_ACCESS')
    const path = join(model.directory, 'text.gguf')
    await writeFile(path, 'this is not a model, however long it may be')
    expect(await codeOf(loadModel(path))).toBe('ERR_GGUF_MAGIC')
  })
})
