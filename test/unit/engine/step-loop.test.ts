/** The step loop over an executor that only records: who goes into which step, and how failures are told. */
import { describe, expect, test } from 'vitest'
import { type BestLogits, RUN_WORDS, STEP_HEADER } from '../../../src/abi/step.ts'
import { TandemError } from '../../../src/errors.ts'
import { KvBlocks } from '../../../src/engine/kv-blocks.ts'
import { type EvaluateRequest, type StepExecutor, StepLoop } from '../../../src/engine/step-loop.ts'
import type { StepSlot } from '../../../src/ring/step-port.ts'
import { stepLayout } from '../../../src/placement/step-layout.ts'
import type { Limits } from '../../../src/placement/types.ts'

const LIMITS: Limits = {
  contextTokens: 256,
  kvTokens: 1024,
  sequences: 4,
  ubatch: 8,
  outputs: 8,
  threads: 1,
  arenaBytes: 1 << 20,
  activations: 'q8',
}
const LAYOUT = stepLayout(LIMITS)

interface Step {
  /** First position and number of tokens of each run. */
  readonly runs: readonly (readonly [number, number])[]
  readonly outputs: number
  readonly best: number
  isCancelled: boolean
}

/** Completes steps one after the other, a turn of the event loop each. */
class Recorder implements StepExecutor {
  readonly steps: Step[] = []
  inFlight = 0
  mostInFlight = 0
  failAt = Infinity
  readonly #depth: number

  constructor(depth: number) {
    this.#depth = depth
  }

  tryClaim(): StepSlot | undefined {
    if (this.steps.length >= this.failAt) throw new TandemError('ERR_WORKER_DIED', 'on purpose')
    if (this.inFlight >= this.#depth) return undefined
    return { sequence: this.steps.length, words: new Int32Array(new SharedArrayBuffer(LAYOUT.bytes)) }
  }

  publish({ words }: StepSlot): void {
    const runs = Array.from({ length: words[STEP_HEADER.runs]! }, (_, run) => {
      const base = LAYOUT.runs / 4 + run * RUN_WORDS
      return [words[LAYOUT.positions / 4 + words[base]!]!, words[base + 1]!] as const
    })
    this.steps.push({ runs, outputs: words[STEP_HEADER.outputs]!, best: words[STEP_HEADER.best]!, isCancelled: false })
    this.mostInFlight = Math.max(this.mostInFlight, ++this.inFlight)
  }

  cancel({ sequence }: StepSlot): void {
    this.steps[sequence]!.isCancelled = true
  }

  async whenCompleted({ sequence }: StepSlot): Promise<boolean> {
    await new Promise((resolve) => setImmediate(resolve))
    if (sequence + 1 >= this.failAt) throw new TandemError('ERR_WORKER_DIED', 'on purpose')
    this.inFlight--
    return !this.steps[sequence]!.isCancelled
  }

  logits(): Float32Array<SharedArrayBuffer> {
    return new Float32Array(new SharedArrayBuffer(4))
  }

  best(row: number, count: number): BestLogits {
    return { ids: Int32Array.from({ length: count }, () => row), logits: new Float32Array(count) }
  }
}

function makeLoop(depth = 2): {
  executor: Recorder
  loop: StepLoop
  request: (tokens: number, more?: Partial<EvaluateRequest>) => EvaluateRequest
} {
  const executor = new Recorder(depth)
  const blocks = new KvBlocks(32)
  const request = (tokens: number, more: Partial<EvaluateRequest> = {}): EvaluateRequest => {
    const table = { blocks: [] }
    blocks.grow(table, 200)
    return { table, position: 0, tokens: Array.from({ length: tokens }, () => 1), outputs: 'last', onLogits: () => undefined, ...more }
  }
  return { executor, loop: new StepLoop(executor, LIMITS, LAYOUT), request }
}

describe('step loop', () => {
  test('a stream is in every step while a long prompt goes through', async () => {
    const { executor, loop, request } = makeLoop()
    const prompt = loop.evaluate(request(70))
    const stream = request(1)
    for (let position = 0; position < 10; position++) await loop.evaluate({ ...stream, position })
    await prompt
    const withPrompt = executor.steps.filter(({ runs }) => runs.some(([, tokens]) => tokens > 1))
    expect(withPrompt.length).toBe(10)
    expect(withPrompt.every(({ runs }) => runs.length === 2)).toBe(true)
  })

  test.each([1, 2, 4])('a prompt fills a ring of %i steps and has its logits read once, at its end', async (depth) => {
    const { executor, loop, request } = makeLoop(depth)
    const seen: number[] = []
    const progress: number[] = []
    await loop.evaluate(request(60, { onLogits: (index) => void seen.push(index), onProgress: (done) => void progress.push(done) }))
    expect(executor.mostInFlight).toBe(depth)
    expect(executor.steps.map(({ outputs }) => outputs)).toEqual([0, 0, 0, 0, 0, 0, 0, 1])
    expect(seen).toEqual([59])
    expect(progress).toEqual([8, 16, 24, 32, 40, 48, 56, 60])
  })

  test('the best logits are told where they are enough for all of a step, and as many as each wants', async () => {
    const { executor, loop, request } = makeLoop()
    const told: string[] = []
    const wanting = (name: string, count?: number): EvaluateRequest =>
      request(1, {
        onLogits: (_index, _logits, row) => void told.push(`${name}: all of row ${row}`),
        best: count === undefined ? undefined : { count, onBest: ({ ids }) => void told.push(`${name}: ${ids.length} of row ${ids[0]}`) },
      })
    const [a, b, c] = [wanting('a', 1), wanting('b', 40), wanting('c')]
    await Promise.all([loop.evaluate(a), loop.evaluate(b)])
    await Promise.all([loop.evaluate(a), loop.evaluate(c), loop.evaluate(b)])
    // a prompt that has no output in its step wants nothing of it
    const prompt = loop.evaluate(request(12))
    await loop.evaluate(a)
    await prompt
    expect(executor.steps.map(({ best }) => best)).toEqual([40, 0, 1, 0])
    expect(told).toEqual(['a: 1 of row 0', 'b: 40 of row 1', 'a: all of row 0', 'c: all of row 1', 'b: all of row 2', 'a: 1 of row 0'])
  })

  test('no step is published behind one whose logits are not read yet', async () => {
    const { executor, loop, request } = makeLoop(4)
    await loop.evaluate(request(40, { outputs: 'all' }))
    expect(executor.mostInFlight).toBe(1)
  })

  test('an aborted request leaves its steps, and only steps of nobody else are cancelled', async () => {
    const { executor, loop, request } = makeLoop(4)
    const controller = new AbortController()
    const aborted = loop.evaluate(request(60, { signal: controller.signal, onProgress: () => controller.abort(new Error('why')) }))
    await expect(aborted).rejects.toMatchObject({ code: 'ERR_ABORTED', cause: { message: 'why' } })
    expect(executor.inFlight).toBe(0)
    expect(executor.steps.length).toBeLessThan(8)
    expect(executor.steps.at(-1)!.isCancelled).toBe(true)

    const other = loop.evaluate(request(30))
    const again = new AbortController()
    const second = loop.evaluate(request(30, { signal: again.signal, onProgress: () => again.abort() }))
    await expect(second).rejects.toMatchObject({ code: 'ERR_ABORTED' })
    await other
  })

  test('one that is aborted before it begins takes no step', async () => {
    const { executor, loop, request } = makeLoop()
    await expect(loop.evaluate(request(5, { signal: AbortSignal.abort() }))).rejects.toMatchObject({ code: 'ERR_ABORTED' })
    expect(executor.steps).toEqual([])
  })

  test('a failing executor fails every request, also those that come later', async () => {
    const { executor, loop, request } = makeLoop()
    executor.failAt = 3
    const all = await Promise.allSettled([loop.evaluate(request(60)), loop.evaluate(request(1)), loop.evaluate(request(60))])
    const codes = all.map((each) => (each.status === 'rejected' ? (each.reason as TandemError).code : 'done'))
    expect(codes).toEqual(['ERR_WORKER_DIED', 'done', 'ERR_WORKER_DIED'])
    await expect(loop.evaluate(request(1))).rejects.toMatchObject({ code: 'ERR_WORKER_DIED' })
    await loop.stop(new TandemError('ERR_CLOSED', 'closed'))
  })

  test('stop fails what is running with its reason and returns when nothing is in flight', async () => {
    const { executor, loop, request } = makeLoop()
    const running = [loop.evaluate(request(60)), loop.evaluate(request(60))].map((each) => each.catch((error: unknown) => error))
    await new Promise((resolve) => setImmediate(resolve))
    await loop.stop(new TandemError('ERR_CLOSED', 'closed'))
    expect(executor.inFlight).toBe(0)
    for (const each of running) expect(await each).toMatchObject({ code: 'ERR_CLOSED' })
  })
})
