/**
 * An arena: one shared WebAssembly.Memory of fixed size, addressed by byte offsets below 4 GiB. Never grown, so views onto it stay valid.
 * Pages that nobody touches cost address space only.
 */
import { TandemError } from '../errors.ts'

/** WebAssembly's page, bytes. */
export const PAGE_BYTES = 65536

/** The pages that files are mapped in: those of the system wherever Tandem maps one (`native/map-file.ts` looks). */
export const FILE_PAGE_BYTES = 4096

/** The most bytes that memory32 can address. */
export const MAX_ARENA_BYTES = 65536 * PAGE_BYTES

/** Creates an arena of at least `bytes`. Throws `ERR_ARENA_LIMIT`, `ERR_MEMORY`. */
export function createArena(bytes: number): WebAssembly.Memory {
  const pages = Math.ceil(bytes / PAGE_BYTES)
  if (!(pages >= 1 && pages * PAGE_BYTES <= MAX_ARENA_BYTES)) {
    throw new TandemError('ERR_ARENA_LIMIT', `an arena of ${bytes} bytes is not between 1 page and 4 GiB`)
  }
  try {
    return new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true })
  } catch (cause) {
    throw new TandemError('ERR_MEMORY', `could not reserve an arena of ${pages * PAGE_BYTES} bytes of address space`, { cause })
  }
}

/** The arena's bytes as a shared buffer. */
export function arenaBuffer(memory: WebAssembly.Memory): SharedArrayBuffer {
  return memory.buffer as unknown as SharedArrayBuffer
}

/** Hands out offsets one after the other; used when a layout is planned, before any memory exists. */
export class Layout {
  #end: number

  constructor(start = 0) {
    this.#end = start
  }

  /** Bytes planned so far. */
  get bytes(): number {
    return this.#end
  }

  /** Reserves `bytes` at a multiple of `align` and returns the offset. */
  reserve(bytes: number, align = 64): number {
    const offset = Math.ceil(this.#end / align) * align
    this.#end = offset + bytes
    return offset
  }
}
