/** A model made by hand on the stand-in: an embedding, a head, and a layer whose experts are the pool's, which the test plays. All F32. */
import { CUDA_RESULTS } from '../../../src/abi/cuda.ts'
import type { CudaFunctions, CudaLibrary, CudaStruct, Handle } from '../../../src/cuda/library.ts'

/** Columns of everything. */
export const HIDDEN = 32
/** Rows of embedding and head. */
export const VOCABULARY = 8
/** Longest wait for the pool. */
export const DEADLINE_MS = 2000

const TOP = 3
const EXPERTS = 4
const TOKENS = 4
const EPSILON = 1e-5
const ENTRY = 9

/** Where things lie in host memory, bytes; words that different sides write have lines of their own. */
const AT = {
  poison: 0,
  published: 64,
  completed: 128,
  finished: 192,
  status: 256,
  record: 512,
  topIds: 1024,
  topLogits: 1280,
  logits: 1536,
  hidden: 2048,
  rows: 3072,
  slot: 4096,
}
const RECORD = { tokenIds: 0, positions: 16, cacheRows: 32, outputs: 48, runs: 64, blockTables: 80 }
const SLOT = { normed: 0, expertIds: 1024, expertWeights: 1088, routed: 2048 }
const HOST_BYTES = 65536

const vector = (length: number, value: (index: number) => number): Float32Array => Float32Array.from({ length }, (_, index) => value(index))

/** An engine with the model bound. */
export class Bench implements Disposable {
  readonly tcu: CudaFunctions
  readonly engine: Handle
  readonly shape: CudaStruct<'shape'>
  /** Address of the weights on the device, and of registered host memory. */
  readonly weights: number
  readonly address: number
  readonly #words: Int32Array<SharedArrayBuffer>
  readonly #floats: Float32Array<SharedArrayBuffer>
  readonly #embedding = vector(VOCABULARY * HIDDEN, (index) => Math.sin(index * 1.7))
  readonly #head = vector(VOCABULARY * HIDDEN, (index) => Math.cos(index * 0.9))
  readonly #norm = vector(HIDDEN, (index) => 1 + index / 64)
  #isClosed = false

  constructor(library: CudaLibrary) {
    this.tcu = library.functions
    this.shape = shape()
    // pages of a WebAssembly memory are whole pages of the system's, and stay where they are
    const { buffer } = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true }) as { buffer: unknown } as {
      buffer: SharedArrayBuffer
    }
    this.#words = new Int32Array(buffer)
    this.#floats = new Float32Array(buffer)
    this.address = library.address(this.#words)
    this.engine = this.tcu.tcu_open(0, this.shape, null)
    this.tcu.tcu_register(this.engine, this.address, HOST_BYTES)
    const router = vector(EXPERTS * HIDDEN, (index) => Math.sin(index))
    const parts = [this.#embedding, this.#head, this.#norm, router]
    this.weights = this.tcu.tcu_memory(
      this.engine,
      parts.reduce((sum, { byteLength }) => sum + byteLength, 0),
    )
    const [embedding, head, norm, gate] = this.#upload(parts) as [number, number, number, number]
    this.#bind(embedding, head, norm, gate)
  }

  #upload(parts: readonly Float32Array[]): number[] {
    let offset = 0
    return parts.map((part) => {
      const to = this.weights + offset
      this.#floats.set(part, AT.slot / 4)
      this.tcu.tcu_upload(this.engine, 1, to, this.address + AT.slot, part.byteLength)
      this.tcu.tcu_upload_wait(this.engine, 1)
      offset += part.byteLength
      return to
    })
  }

  #bind(embedding: number, head: number, norm: number, router: number): void {
    const { tcu, engine, address: base } = this
    const word = (at: number): number => base + at
    tcu.tcu_attach(engine, {
      poison: word(AT.poison),
      published: word(AT.published),
      completed: word(AT.completed),
      finished: word(AT.finished),
      status: word(AT.status),
      logits: word(AT.logits),
      hidden: word(AT.hidden),
      topIds: word(AT.topIds),
      topLogits: word(AT.topLogits),
      marks: null,
      markCount: 0,
    })
    const matrix = (at: number, rows: number): CudaStruct<'matrix'> => ({
      address: at,
      expertBytes: 0,
      format: 0,
      rows,
      columns: HIDDEN,
      experts: 1,
    })
    tcu.tcu_bind_model(engine, { embedding: matrix(embedding, VOCABULARY), outputNorm: norm, head: matrix(head, VOCABULARY) })
    const none = { attentionNorm: 0, qBias: 0, kBias: 0, vBias: 0, qNorm: 0, kNorm: 0, keyCache: 0, valueCache: 0, selectionBias: 0 }
    const slot = word(AT.slot)
    tcu.tcu_bind_layer(
      engine,
      0,
      { ...none, ffnNorm: norm, router: matrix(router, EXPERTS) },
      {
        normed: slot + SLOT.normed,
        q8x32: null,
        q8x256: null,
        expertIds: slot + SLOT.expertIds,
        expertWeights: slot + SLOT.expertWeights,
        routed: slot + SLOT.routed,
        entry: ENTRY,
        holds: 0,
      },
    )
  }

  /** Writes the record of a step with one sequence, all its logits wanted, and begins the step. */
  begin(tokens: readonly number[]): void {
    const record = this.#words.subarray(AT.record / 4)
    const count = tokens.length
    tokens.forEach((token, index) => {
      record[RECORD.tokenIds / 4 + index] = token
      for (const part of [RECORD.positions, RECORD.cacheRows, RECORD.outputs]) record[part / 4 + index] = index
    })
    record.set([0, count, 0, 0], RECORD.runs / 4)
    record[RECORD.blockTables / 4] = 0
    const at = (part: keyof typeof RECORD): number => this.address + AT.record + RECORD[part]
    this.tcu.tcu_begin_step(this.engine, {
      tokenIds: at('tokenIds'),
      positions: at('positions'),
      cacheRows: at('cacheRows'),
      outputs: at('outputs'),
      runs: at('runs'),
      blockTables: at('blockTables'),
      tokenCount: count,
      runCount: 1,
      outputCount: count,
      mostKeys: 32,
    })
  }

  /** Embedding, head and end. `top`: best logits that are told. */
  queue(results: number = CUDA_RESULTS.logits, top = TOP): void {
    this.tcu.tcu_embed(this.engine)
    this.tcu.tcu_head(this.engine, results, top)
    this.tcu.tcu_end_step(this.engine)
  }

  /** A whole step without the layer. */
  step(tokens: readonly number[]): void {
    this.begin(tokens)
    this.queue()
  }

  /** The same in one call, so that no later one can meet its failure. */
  launch(tokens: readonly number[]): void {
    this.begin(tokens)
    this.tcu.tcu_capture_begin(this.engine)
    this.queue()
    this.tcu.tcu_graph_launch(this.engine, this.tcu.tcu_capture_end(this.engine))
  }

  /** A whole step whose layer waits for the pool. */
  handOff(tokens: readonly number[]): void {
    const { tcu, engine } = this
    this.begin(tokens)
    tcu.tcu_embed(engine)
    tcu.tcu_router(engine, 0)
    tcu.tcu_publish(engine, 0)
    tcu.tcu_await_routed(engine, 0)
    tcu.tcu_combine(engine, 0)
    tcu.tcu_head(engine, CUDA_RESULTS.logits, TOP)
    tcu.tcu_end_step(engine)
  }

  /** What the pool does: an answer of equal numbers, told. */
  answer(value: number): void {
    this.#floats.fill(value, (AT.slot + SLOT.routed) / 4, (AT.slot + SLOT.routed) / 4 + TOKENS * HIDDEN)
    Atomics.add(this.#words, AT.completed / 4, 1)
  }

  /** Floats of the host's memory for rows; written by a test, or by the stand-in. */
  get rows(): Float32Array<SharedArrayBuffer> {
    return this.#floats.subarray(AT.rows / 4, AT.rows / 4 + TOKENS * HIDDEN)
  }

  /** Their address. */
  get rowsAddress(): number {
    return this.address + AT.rows
  }

  /** What the head multiplied: row `index` of the last step. */
  hidden(index: number): Float32Array {
    return this.#floats.slice(AT.hidden / 4 + index * HIDDEN, AT.hidden / 4 + (index + 1) * HIDDEN)
  }

  /** Overwrites a weight of the head. */
  setHead(row: number, value: number): void {
    this.#floats[AT.slot / 4] = value
    this.tcu.tcu_upload(this.engine, 1, this.weights + this.#embedding.byteLength + row * HIDDEN * 4, this.address + AT.slot, 4)
    this.tcu.tcu_upload_wait(this.engine, 1)
  }

  poison(): void {
    Atomics.store(this.#words, AT.poison / 4, 1)
  }

  /** The word and the two behind it. */
  get published(): Int32Array {
    return this.#words.slice(AT.published / 4, AT.published / 4 + 3)
  }

  get finishedSteps(): number {
    return Atomics.load(this.#words, AT.finished / 4)
  }

  get status(): number {
    return Atomics.load(this.#words, AT.status / 4)
  }

  /** Whether calls fail by now. */
  hasFailed(): boolean {
    try {
      this.tcu.tcu_is_idle(this.engine)
      return false
    } catch {
      return true
    }
  }

  /** Waits for a condition, 5 s at most. */
  async until(isSo: () => boolean): Promise<void> {
    const end = performance.now() + 5000
    while (!isSo()) {
      if (performance.now() > end) throw new Error('it did not happen within 5 s')
      // oxlint-disable-next-line no-await-in-loop -- it is a poll
      await new Promise((resolve) => setTimeout(resolve, 1))
    }
  }

  async finished(steps: number): Promise<void> {
    await this.until(() => this.finishedSteps === steps)
  }

  /** Row `index` of the last step's results. */
  logits(index: number): Float32Array {
    return this.#floats.slice(AT.logits / 4 + index * VOCABULARY, AT.logits / 4 + (index + 1) * VOCABULARY)
  }

  topIds(index: number): number[] {
    return [...this.#words.slice(AT.topIds / 4 + index * TOP, AT.topIds / 4 + (index + 1) * TOP)]
  }

  /** A token's row of the embedding. */
  embedding(token: number): Float32Array {
    return this.#embedding.slice(token * HIDDEN, (token + 1) * HIDDEN)
  }

  /** What the head multiplies in a step without the layer, in float64. */
  hiddenReference(token: number): number[] {
    const x = [...this.embedding(token)]
    const rms = Math.sqrt(x.reduce((sum, value) => sum + value * value, 0) / HIDDEN + EPSILON)
    return x.map((value, index) => (value / rms) * this.#norm[index]!)
  }

  /** The logits of a step without the layer, in float64. */
  reference(token: number): number[] {
    const normed = this.hiddenReference(token)
    return Array.from({ length: VOCABULARY }, (_, row) =>
      normed.reduce((sum, value, index) => sum + value * this.#head[row * HIDDEN + index]!, 0),
    )
  }

  /** The token with the highest of them. */
  best(token: number): number {
    const logits = this.reference(token)
    return logits.indexOf(Math.max(...logits))
  }

  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.tcu.tcu_close(this.engine)
  }

  [Symbol.dispose](): void {
    this.close()
  }
}

function shape(): CudaStruct<'shape'> {
  return {
    ...{ hidden: HIDDEN, heads: 1, kvHeads: 1, headDim: 32, rotary: 0, vocabulary: VOCABULARY, layers: 2 },
    ...{
      ffn: 0,
      ffnExpert: 0,
      experts: EXPERTS,
      expertsUsed: 2,
      deviceExperts: 0,
      gating: 2,
      normalizeWeights: 1,
      weightsScale: 1,
      epsilon: EPSILON,
    },
    ...{ ubatch: TOKENS, sequences: 1, outputs: TOKENS, kvBlocks: 1, blocksPerSequence: 1, top: TOP, digits: 1, deadlineMs: DEADLINE_MS },
  }
}
