/** The product's kernels over one shared memory, with a bump allocator. */
import { ACTIVATION, FORMATS, packedBytes, type FormatName } from '../../src/abi/formats.ts'
import { type KernelExports, recordBytes, scratchBytes } from '../../src/abi/kernels.ts'
import { Layout } from '../../src/ring/arena.ts'
import { check, compileKernels, instantiateKernels } from '../../src/wasm/kernels.ts'
import { randomRows, randomWeights } from '../../test/conformance/reference.ts'

const MODULE_BYTES = 65536
const STACK_BYTES = 65536
const PAGE_BYTES = 65536
/** Threads that may make an instance over one arena. */
const MAX_THREADS = 16

/** What a thread needs to make its own instance. */
export interface ArenaHandle {
  readonly module: WebAssembly.Module
  readonly memory: WebAssembly.Memory
}

/** The kernels for thread `thread` over an arena. */
export function kernelsOf({ module, memory }: ArenaHandle, thread: number): KernelExports {
  return instantiateKernels(module, memory, MODULE_BYTES + (thread + 1) * STACK_BYTES, MODULE_BYTES)
}

/** See the file's header. */
export class BenchArena {
  readonly handle: ArenaHandle
  readonly kernels: KernelExports
  readonly #layout = new Layout(MODULE_BYTES + MAX_THREADS * STACK_BYTES)

  private constructor(handle: ArenaHandle) {
    this.handle = handle
    this.kernels = kernelsOf(handle, 0)
  }

  /** An arena of `bytes`, in which everything that a suite needs must fit. */
  static async make(bytes: number): Promise<BenchArena> {
    const { module } = await compileKernels()
    const pages = Math.ceil((bytes + MODULE_BYTES + MAX_THREADS * STACK_BYTES) / PAGE_BYTES)
    return new BenchArena({ module, memory: new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true }) })
  }

  allocate(bytes: number): number {
    const offset = this.#layout.reserve(bytes)
    if (this.#layout.bytes > this.handle.memory.buffer.byteLength) throw new Error(`the arena is too small for ${bytes} more bytes`)
    return offset
  }

  bytes(offset: number, length: number): Uint8Array {
    return new Uint8Array(this.handle.memory.buffer, offset, length)
  }

  floats(offset: number, length: number): Float32Array {
    return new Float32Array(this.handle.memory.buffer, offset, length)
  }

  upload(data: ArrayBufferView): number {
    const offset = this.allocate(data.byteLength)
    this.bytes(offset, data.byteLength).set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength))
    return offset
  }

  /** Panels of a random matrix, made once and repeated until `rows` are there: what is multiplied does not change the time. */
  matrix(format: FormatName, file: Uint8Array, fileRows: number, rows: number, columns: number): number {
    const staged = this.upload(file)
    const panels = this.allocate(packedBytes(FORMATS[format], rows, columns))
    const once = packedBytes(FORMATS[format], fileRows, columns)
    check(this.kernels.repack(FORMATS[format].id, panels, staged, columns, fileRows), 'repack')
    for (let row = fileRows; row < rows; row += fileRows) {
      const count = Math.min(fileRows, rows - row)
      const to = panels + packedBytes(FORMATS[format], row, columns)
      this.bytes(to, once).set(this.bytes(panels, packedBytes(FORMATS[format], count, columns)))
    }
    return panels
  }

  /** Quantised activations for a weight format. */
  records(format: FormatName, x: Float32Array, columns: number): number {
    const { activation } = FORMATS[format]
    const tokens = x.length / columns
    const records = this.allocate(tokens * recordBytes(activation, columns))
    check(this.kernels.quantize(ACTIVATION[activation], records, this.upload(x), columns, tokens), 'quantize')
    return records
  }
}

/** A matrix product ready to run on a part of its rows. */
export interface Product {
  readonly format: FormatName
  readonly rows: number
  readonly columns: number
  readonly tokens: number
  readonly panels: number
  readonly x: number
  readonly y: number
  readonly scratch: number
}

/** Bytes that `makeProduct` takes. */
export function productBytes(format: FormatName, rows: number, columns: number, tokens: number): number {
  const row = FORMATS[format].panelBytes * (columns / FORMATS[format].blockElements)
  return (rows / 8 + 8) * row + SAMPLE_ROWS * columns * 4 + tokens * (rows * 4 + columns * 12) + MAX_THREADS * scratchOf(columns) + 4096
}

/** Rows of which random weights are made; larger matrices repeat them. */
export const SAMPLE_ROWS = 64

/** File rows of random weights. MXFP4 gets no scales that are subnormal f32: real files have none, and they slow every multiplication that meets them. */
export function sampleWeights(format: FormatName, columns: number): Uint8Array {
  const file = randomWeights(format, SAMPLE_ROWS, columns, 1)
  if (format === 'MXFP4') {
    for (let block = 0; block < file.length; block += FORMATS[format].blockBytes) file[block] = Math.max(file[block]!, LEAST_EXPONENT)
  }
  return file
}

const LEAST_EXPONENT = 119

const scratchOf = (columns: number): number => Math.ceil(scratchBytes(columns, 0, 0) / 64) * 64

/** A product's shape. */
export type ProductShape = Pick<Product, 'format' | 'rows' | 'columns' | 'tokens'>

/** A product of given file rows, repeated until `rows` are there, and activations. */
export function makeProductFrom(
  arena: BenchArena,
  shape: ProductShape,
  file: Uint8Array,
  fileRows: number,
  activations: Float32Array,
): Product {
  const { format, rows, columns, tokens } = shape
  const panels = arena.matrix(format, file, fileRows, rows, columns)
  const x = arena.records(format, activations, columns)
  const y = arena.allocate(tokens * rows * 4)
  const scratch = arena.allocate(MAX_THREADS * scratchOf(columns))
  return { ...shape, panels, x, y, scratch }
}

/** Random weights and activations in an arena. */
export function makeProduct(arena: BenchArena, format: FormatName, rows: number, columns: number, tokens: number): Product {
  const file = sampleWeights(format, columns)
  return makeProductFrom(arena, { format, rows, columns, tokens }, file, SAMPLE_ROWS, randomRows(tokens * columns, 2))
}

/** One thread's share of a product: whole panels. */
export function runShare(kernels: KernelExports, product: Product, thread: number, threads: number): void {
  const { format, rows, columns, tokens, panels, x, y, scratch } = product
  const begin = Math.round((rows / 8) * (thread / threads)) * 8
  const end = Math.round((rows / 8) * ((thread + 1) / threads)) * 8
  const mine = scratch + thread * scratchOf(columns)
  check(kernels.matmul(FORMATS[format].id, 0, y, rows, panels, x, 0, 0, 0, 0, columns, begin, end, tokens, mine), 'matmul')
}
