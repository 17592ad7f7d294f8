// The stand-in for a GPU does what cuda/tandem_cuda.h says, and fails as cuda/host/faults.h says.
import { afterEach, beforeAll, describe, expect, test } from 'vitest'
import { CUDA_RESULTS, CUDA_ROWS, CUDA_STATUS } from '../../../src/abi/cuda.ts'
import type { CudaLibrary } from '../../../src/cuda/library.ts'
import { loadCudaLibrary } from '../../../src/cuda/library.ts'
import { type FAULT, standIn } from '../../fixtures/stand-in.ts'
import { Bench, DEADLINE_MS, HIDDEN, VOCABULARY } from './bench.ts'

const LIMIT = 'TANDEM_HOST_DEVICE_BYTES'

describe.skipIf(!standIn)('the stand-in', () => {
  let library: CudaLibrary
  const fault = (kind: keyof typeof FAULT, countdown?: number): void => standIn?.fault(kind, countdown)
  beforeAll(async () => {
    library = await loadCudaLibrary(standIn!.path)
  })
  afterEach(() => {
    fault('none')
    delete process.env[LIMIT]
  })

  test('says what it is', () => {
    process.env[LIMIT] = '5000000'
    expect(library.functions.tcu_device_count()).toBe(1)
    expect(library.functions.tcu_device_info(0)).toMatchObject({
      name: 'stand-in (no GPU)',
      bytes: 5_000_000,
      freeBytes: 5_000_000,
      major: 0,
    })
  })

  test('has no more memory than it says, and gets all of it back', () => {
    process.env[LIMIT] = '5000000'
    const bench = new Bench(library)
    bench.tcu.tcu_memory(bench.engine, 4_000_000)
    expect(library.functions.tcu_device_info(0).freeBytes).toBeLessThan(1_000_000)
    expect(() => bench.tcu.tcu_memory(bench.engine, 1_000_000)).toThrow(
      /ERR_MEMORY|out of memory: asked for 1000000 bytes, \d+ of 5000000 are free/,
    )
    bench.close()
    expect(library.functions.tcu_device_info(0).freeBytes).toBe(5_000_000)
    process.env[LIMIT] = '1000'
    expect(() => new Bench(library)).toThrow(/out of memory/)
  })

  test('a step in parts: rows are read at the end of one and written at the beginning of the next', async () => {
    using bench = new Bench(library)
    const { tcu, engine, rowsAddress } = bench
    bench.begin([3, 5])
    tcu.tcu_embed(engine)
    tcu.tcu_read_rows(engine, CUDA_ROWS.x, rowsAddress)
    tcu.tcu_end_step(engine)
    await bench.finished(1)
    expect([...bench.rows.subarray(0, 2 * HIDDEN)]).toEqual([...bench.embedding(3), ...bench.embedding(5)])
    bench.rows.set(bench.embedding(6), HIDDEN)
    bench.begin([3, 5])
    tcu.tcu_write_rows(engine, CUDA_ROWS.x, rowsAddress)
    tcu.tcu_head(engine, CUDA_RESULTS.logits | CUDA_RESULTS.hidden, 0)
    tcu.tcu_end_step(engine)
    await bench.finished(2)
    for (const [index, token] of [3, 6].entries()) {
      expect(Math.max(...bench.reference(token).map((value, id) => Math.abs(value - bench.logits(index)[id]!)))).toBeLessThan(1e-5)
      expect(Math.max(...bench.hiddenReference(token).map((value, at) => Math.abs(value - bench.hidden(index)[at]!)))).toBeLessThan(1e-5)
    }
  })

  test('rows are copied inside a step, to registered memory, where there are any, and nobody chooses experts', () => {
    using bench = new Bench(library)
    const { tcu, engine, rowsAddress } = bench
    const refused = expect.objectContaining({ code: 'ERR_KERNEL' })
    expect(() => tcu.tcu_read_rows(engine, CUDA_ROWS.x, rowsAddress)).toThrow(refused)
    bench.begin([1])
    for (const [rows, host] of [
      [CUDA_ROWS.x, 4096],
      [CUDA_ROWS.x, null],
      [CUDA_ROWS.routed, rowsAddress],
      [5, rowsAddress],
      [-1, rowsAddress],
    ] as const) {
      expect(() => tcu.tcu_read_rows(engine, rows, host)).toThrow(refused)
      expect(() => tcu.tcu_write_rows(engine, rows, host)).toThrow(refused)
    }
    expect(() => tcu.tcu_write_rows(engine, CUDA_ROWS.expertIds, rowsAddress)).toThrow(refused)
  })

  test('runs a step: logits and the best of them', async () => {
    using bench = new Bench(library)
    bench.step([3, 5])
    await bench.finished(1)
    expect(bench.status).toBe(CUDA_STATUS.ok)
    for (const [index, token] of [3, 5].entries()) {
      const expected = bench.reference(token)
      const logits = bench.logits(index)
      expect(Math.max(...expected.map((value, id) => Math.abs(value - logits[id]!)))).toBeLessThan(1e-5)
      const order = [...expected.keys()].toSorted((a, b) => expected[b]! - expected[a]! || a - b)
      expect(bench.topIds(index)).toEqual(order.slice(0, 3))
    }
  })

  test('tells as many of the best as are wanted, in rows that have room for all', async () => {
    using bench = new Bench(library)
    const [first, second] = [3, 5].map((token) => bench.best(token))
    bench.begin([3, 5])
    bench.queue(0, 1)
    await bench.finished(1)
    expect([bench.topIds(0), bench.topIds(1)]).toEqual([
      [first, 0, 0],
      [second, 0, 0],
    ])
    expect([...bench.logits(0)]).toEqual(Array.from({ length: VOCABULARY }, () => 0))
    bench.begin([3, 5])
    bench.queue(CUDA_RESULTS.logits, 0)
    await bench.finished(2)
    expect(bench.topIds(0)).toEqual([first, 0, 0])
    expect(bench.logits(0)[first!]).toBeCloseTo(Math.max(...bench.reference(3)), 4)
    bench.begin([3])
    for (const top of [-1, 4])
      expect(() => bench.queue(CUDA_RESULTS.logits, top)).toThrow(new RegExp(`the best ${top}, the engine has room for 3`))
  })

  test.each([Number.NaN, Infinity, -Infinity])('tells a logit that is %d before all others', async (bad) => {
    using bench = new Bench(library)
    bench.setHead(6, bad)
    bench.begin([3])
    bench.queue(0, 2)
    await bench.finished(1)
    const finite = bench.reference(3).map((value, id) => (id === 6 ? -Infinity : value))
    expect(bench.topIds(0)).toEqual([6, finite.indexOf(Math.max(...finite)), 0])
  })

  test('launches a recorded step with other tokens', async () => {
    using bench = new Bench(library)
    const { tcu, engine } = bench
    bench.begin([1])
    tcu.tcu_capture_begin(engine)
    bench.queue()
    const graph = tcu.tcu_capture_end(engine)
    expect(bench.finishedSteps).toBe(0)
    for (const [index, token] of [2, 6].entries()) {
      bench.begin([token])
      tcu.tcu_graph_launch(engine, graph)
      await bench.finished(index + 1)
      expect(bench.topIds(0)[0]).toBe(bench.best(token))
    }
    bench.begin([1, 2])
    expect(() => tcu.tcu_graph_launch(engine, graph)).toThrow(/other numbers/)
    tcu.tcu_graph_free(engine, graph)
    expect(() => tcu.tcu_graph_launch(engine, graph)).toThrow(/not a graph/)
  })

  test('refuses what a GPU would be harmed by', () => {
    using bench = new Bench(library)
    const { tcu, engine } = bench
    expect(() => tcu.tcu_embed(engine)).toThrow(/no step was begun/)
    bench.begin([1])
    expect(() => tcu.tcu_attention(engine, 0)).toThrow(/has none here/)
    expect(() => tcu.tcu_attention(engine, 1)).toThrow(/not bound/)
    expect(() => tcu.tcu_upload(engine, 0, 4096, bench.address, 64)).toThrow(/not the engine's memory/)
    expect(() => tcu.tcu_upload(engine, 0, bench.weights, new Float32Array(16), 64)).toThrow(/not in registered host memory/)
    expect(() => tcu.tcu_register(engine, bench.address, 4096)).toThrow(/already registered/)
    expect(() => bench.begin([VOCABULARY])).not.toThrow()
    expect(() => library.functions.tcu_open(1, bench.shape, null)).toThrow(/there is no device 1/)
    expect(() => library.functions.tcu_open(0, { ...bench.shape, hidden: HIDDEN + 1 }, null)).toThrow(/hidden is no multiple of 32/)
    expect(() => library.functions.tcu_open(0, { ...bench.shape, digits: 3 }, null)).toThrow(/digits is neither 1 nor 2/)
  })

  test('ends a step that names a token which is not there', async () => {
    using bench = new Bench(library)
    bench.step([VOCABULARY])
    await bench.finished(1)
    expect(bench.status).toBe(CUDA_STATUS.argument)
  })

  describe('a hand-off', () => {
    test('is published with its entry and tokens, and awaited', async () => {
      using bench = new Bench(library)
      bench.handOff([4, 7])
      await bench.until(() => bench.published[0] === 1)
      expect([...bench.published]).toEqual([1, 9, 2])
      expect(bench.finishedSteps).toBe(0)
      bench.answer(0.5)
      await bench.finished(1)
      expect(bench.status).toBe(CUDA_STATUS.ok)
    })

    test('that does not come back ends with the deadline', async () => {
      using bench = new Bench(library)
      const begin = performance.now()
      bench.handOff([4])
      await bench.finished(1)
      expect(bench.status).toBe(CUDA_STATUS.timeout)
      expect(performance.now() - begin).toBeGreaterThanOrEqual(DEADLINE_MS - 1)
    })

    test('ends with the poison word', async () => {
      using bench = new Bench(library)
      bench.handOff([4])
      await bench.until(() => bench.published[0] === 1)
      bench.poison()
      await bench.finished(1)
      expect(bench.status).toBe(CUDA_STATUS.poisoned)
    })

    test('ends when the engine is closed', async () => {
      const bench = new Bench(library)
      bench.handOff([4])
      await bench.until(() => bench.published[0] === 1)
      expect(() => bench.close()).not.toThrow()
      expect(bench.status).toBe(CUDA_STATUS.poisoned)
    })
  })

  describe('fault', () => {
    test('stage: the step ends with a status, every later call fails', async () => {
      const bench = new Bench(library)
      fault('stage', 2)
      bench.launch([1])
      await bench.finished(1)
      expect(bench.status).toBe(CUDA_STATUS.device)
      expect(() => bench.tcu.tcu_is_idle(bench.engine)).toThrow(/head: a fault was asked for/)
      expect(() => bench.begin([1])).toThrow(/a fault was asked for/)
      expect(() => bench.close()).toThrow(/a fault was asked for/)
      using other = new Bench(library)
      other.step([1])
      await other.finished(1)
      expect(other.status).toBe(CUDA_STATUS.ok)
    })

    test('lost: the step never ends, no engine can be opened', async () => {
      const bench = new Bench(library)
      fault('lost')
      bench.launch([1])
      await bench.until(() => bench.hasFailed())
      expect(bench.finishedSteps).toBe(0)
      expect(() => bench.tcu.tcu_is_idle(bench.engine)).toThrow(expect.objectContaining({ code: 'ERR_DEVICE_LOST' }))
      expect(() => bench.close()).toThrow(expect.objectContaining({ code: 'ERR_DEVICE_LOST' }))
      expect(() => new Bench(library)).toThrow(expect.objectContaining({ code: 'ERR_DEVICE_LOST' }))
      fault('none')
      new Bench(library).close()
    })

    test('publish: the hand-off never comes', async () => {
      using bench = new Bench(library)
      fault('publish')
      bench.handOff([1])
      await bench.finished(1)
      expect(bench.status).toBe(CUDA_STATUS.timeout)
      expect(bench.published[0]).toBe(0)
    })

    test('hang: nothing comes until the engine is closed', async () => {
      const bench = new Bench(library)
      fault('hang')
      bench.step([1])
      await new Promise((resolve) => setTimeout(resolve, 50))
      expect(bench.tcu.tcu_is_idle(bench.engine)).toBe(0)
      expect(() => bench.tcu.tcu_clock(bench.engine)).toThrow(/does not answer/)
      bench.close()
    })

    test('memory: at the n-th call', () => {
      using bench = new Bench(library)
      fault('memory', 2)
      bench.tcu.tcu_memory(bench.engine, 256)
      expect(() => bench.tcu.tcu_memory(bench.engine, 256)).toThrow(expect.objectContaining({ code: 'ERR_MEMORY' }))
      bench.tcu.tcu_memory(bench.engine, 256)
    })

    test('absent: from the n-th question on', () => {
      fault('absent', 2)
      expect(library.functions.tcu_device_count()).toBe(1)
      expect(() => new Bench(library)).toThrow(expect.objectContaining({ code: 'ERR_DEVICE_ABSENT' }))
      expect(() => library.functions.tcu_device_info(0)).toThrow(expect.objectContaining({ code: 'ERR_DEVICE_ABSENT' }))
    })
  })
})
