/** Fills arenas one after the other; offsets are multiples of 64, those of large matrices of a page of the system. */
import { FORMATS, packedBytes } from '../abi/formats.ts'
import type { cacheBytes } from '../abi/kernels.ts'
import { TandemError } from '../errors.ts'
import type { FeedForward, Layer, Matrix, Vector } from '../model/types.ts'
import { FILE_PAGE_BYTES, Layout, PAGE_BYTES } from '../ring/arena.ts'
import type { DeviceBytes, Limits, PlacedFeedForward, PlacedMatrix, PlacedVector } from './types.ts'

const ALIGN = 64

export type CacheBytes = ReturnType<typeof cacheBytes>

/** Matrices from this size on get pages of their own, where a sidecar can be mapped: for smaller ones that would cost more than it gains. */
const OWN_PAGES_BYTES = 16 * FILE_PAGE_BYTES

/** Whether a matrix of `bytes`, or a range of a matrix's experts, shares its pages with nothing else. */
export const ownsPages = (bytes: number): boolean => bytes >= OWN_PAGES_BYTES

/** Packed bytes of one expert's matrix. */
export const packedMatrixBytes = (matrix: Matrix): number => packedBytes(FORMATS[matrix.tensor.format], matrix.rows, matrix.columns)

const aligned = (bytes: number, align: number): number => Math.ceil(bytes / align) * align

/** The most that something may take with its alignment: whole pages, and what is left of the page before. */
export const padded = (bytes: number): number =>
  ownsPages(bytes) ? aligned(bytes, FILE_PAGE_BYTES) + FILE_PAGE_BYTES - ALIGN : aligned(bytes, ALIGN)

/** The most that a cache may take with its alignment. */
export const paddedCache = ({ scales, integers }: CacheBytes): number => aligned(scales, FILE_PAGE_BYTES) + padded(integers)

/** What alignment may add to a range of a feed-forward network's experts. */
const slack = ({ gate, up, down }: FeedForward): number =>
  [gate, up, down].reduce((sum, matrix) => sum + (ownsPages(packedMatrixBytes(matrix) * matrix.experts) ? 2 * FILE_PAGE_BYTES : ALIGN), 0)

/** Packed bytes of one expert of a feed-forward network. */
const bytesPerExpert = ({ gate, up, down }: FeedForward): number =>
  [gate, up, down].reduce((sum, matrix) => sum + packedMatrixBytes(matrix), 0)

/** See the file's header. */
export class ArenaFiller {
  readonly arenas: Layout[] = []
  weights = 0
  kvCache = 0
  readonly #prefix: number
  readonly #limit: number

  /** `prefix`: bytes that every arena begins with. */
  constructor(prefix: number, { arenaBytes }: Pick<Limits, 'arenaBytes'>) {
    const limit = Math.floor(arenaBytes / PAGE_BYTES) * PAGE_BYTES
    this.#prefix = prefix
    this.#limit = limit
    if (prefix > limit) {
      throw new TandemError(
        'ERR_ARENA_LIMIT',
        `the buffers of a step need ${prefix} bytes, an arena may have ${limit}: lower ubatch or outputs`,
      )
    }
    this.#open()
  }

  #open(): void {
    this.arenas.push(new Layout(this.#prefix))
  }

  get index(): number {
    return this.arenas.length - 1
  }

  get #current(): Layout {
    return this.arenas[this.index]!
  }

  /** Bytes left in the current arena. */
  get room(): number {
    return this.#limit - aligned(this.#current.bytes, ALIGN)
  }

  /** Makes sure that `bytes` fit in the current arena, opening a new one if need be. */
  ensure(bytes: number, what: string): void {
    if (bytes <= this.room) return
    const empty = this.#limit - aligned(this.#prefix, ALIGN)
    if (bytes > empty) {
      throw new TandemError(
        'ERR_ARENA_LIMIT',
        `${what} needs ${bytes} bytes in one arena; an arena of ${this.#limit} bytes has room for ${empty}`,
      )
    }
    this.#open()
  }

  /** Opens a new arena unless the current one holds nothing yet. */
  next(): void {
    if (this.#current.bytes > this.#prefix) this.#open()
  }

  matrix(matrix: Matrix, expertBegin = 0, expertEnd = matrix.experts): PlacedMatrix {
    const expertBytes = packedMatrixBytes(matrix)
    const bytes = expertBytes * (expertEnd - expertBegin)
    this.weights += bytes
    const hasOwnPages = ownsPages(bytes)
    const offset = hasOwnPages
      ? this.#current.reserve(aligned(bytes, FILE_PAGE_BYTES), FILE_PAGE_BYTES)
      : this.#current.reserve(bytes, ALIGN)
    return { matrix, arena: this.index, offset, expertBegin, expertEnd, expertBytes, hasOwnPages }
  }

  vector(vector: Vector): PlacedVector {
    this.weights += vector.length * 4
    return { vector, arena: this.index, offset: this.#current.reserve(vector.length * 4, ALIGN) }
  }

  /** Where the integers of a cache begin, on a page of their own unless they are few; its scales lie before them. */
  cache({ scales, integers }: CacheBytes): number {
    this.kvCache += scales + integers
    const align = ownsPages(integers) ? FILE_PAGE_BYTES : ALIGN
    const before = aligned(scales, align)
    return this.#current.reserve(before + integers, align) + before
  }

  feedForward(ffn: FeedForward, begin = 0, end = ffn.gate.experts): PlacedFeedForward {
    return { gate: this.matrix(ffn.gate, begin, end), up: this.matrix(ffn.up, begin, end), down: this.matrix(ffn.down, begin, end) }
  }

  /** A layer's experts, over several arenas when they do not fit in the rest of this one. */
  routed(layer: Layer): PlacedFeedForward[] {
    const { routed } = layer
    if (!routed) return []
    const each = bytesPerExpert(routed)
    const extra = slack(routed)
    const groups: PlacedFeedForward[] = []
    for (let begin = 0; begin < routed.gate.experts;) {
      const left = routed.gate.experts - begin
      let fit = Math.min(left, Math.floor((this.room - extra) / each))
      if (fit < 1) {
        this.next()
        this.ensure(each + extra, `one expert of layer ${layer.index}`)
        fit = Math.min(left, Math.floor((this.room - extra) / each))
      }
      groups.push(this.feedForward(routed, begin, begin + fit))
      begin += fit
    }
    return groups
  }

  /** As `routed`, but in a new arena where that keeps the layer's experts together: what was left of the last one costs nothing. */
  routedTogether(layer: Layer): PlacedFeedForward[] {
    const { routed } = layer
    const whole = routed ? bytesPerExpert(routed) * routed.gate.experts + slack(routed) : 0
    if (whole > this.room && whole <= this.#limit - aligned(this.#prefix, ALIGN)) this.next()
    return this.routed(layer)
  }

  /** Bytes of each arena, whole pages. */
  get arenaBytes(): number[] {
    return this.arenas.map((layout) => Math.ceil(layout.bytes / PAGE_BYTES) * PAGE_BYTES)
  }

  /** What the arenas hold; their prefixes count as buffers. */
  get deviceBytes(): DeviceBytes {
    const bytes = this.arenaBytes.reduce((sum, each) => sum + each, 0)
    const { weights, kvCache } = this
    return { id: 'wasm', bytes, weights, kvCache, buffers: bytes - weights - kvCache }
  }
}
