/**
 * What a sidecar is: the matrices of a model as panels, so that they can be mapped into arenas as they are (docs/sidecar.md).
 *
 *     0        "TANDEMPK", u32 version, u32 byte order, u64 bytes of the index, SHA-256 of the index
 *     64       index, JSON
 *     page n   panels of the first matrix, all experts; each further matrix begins on a page of its own; zeros between
 *
 * Nothing in the index says where to read or how much: a reader computes all of that from the model and refuses an index that says something else.
 */
import type { FormatName } from '../abi/formats.ts'
import { packedMatrixBytes, ownsPages } from '../placement/arena-filler.ts'
import type { FeedForward, Layer, Matrix, Model } from '../model/types.ts'
import { FILE_PAGE_BYTES } from '../ring/arena.ts'

/** The first eight bytes. */
export const SIDECAR_MAGIC = 'TANDEMPK'

/** Of the file's structure; that of the panels is told by `SidecarIndex.panels`. */
export const SIDECAR_VERSION = 1

/** As a little-endian number; a file of another byte order has it the other way round. */
export const BYTE_ORDER = 0x0102_0304

/** Bytes before the index. */
export const HEADER_BYTES = 64

/** Offsets of the header's fields. */
export const HEADER = { version: 8, byteOrder: 12, indexBytes: 16, indexHash: 24 } as const

/** No index is longer: 250 bytes for each of as many matrices as a model may have tensors. */
export const MAX_INDEX_BYTES = 16 * 2 ** 20

/** What a model's file was like when it was repacked. Hashes are SHA-256, hexadecimal. */
export interface ShardIdentity {
  readonly bytes: number
  /** Time of the last change, ns since 1970. */
  readonly modified: string
  /** Of everything before the first tensor's data. */
  readonly header: string
  /** Of the whole file. */
  readonly content: string
}

/** Where the panels of a matrix are. */
export interface SidecarMatrix {
  readonly tensor: string
  readonly format: FormatName
  readonly firstRow: number
  readonly rows: number
  readonly columns: number
  readonly experts: number
  /** From the start of the data, a multiple of a page. */
  readonly offset: number
  /** All experts. */
  readonly bytes: number
}

/** What the file says about itself. */
export interface SidecarIndex {
  /** What `panelLayout` told of the kernels that repacked. */
  readonly panels: string
  readonly shards: readonly ShardIdentity[]
  readonly matrices: readonly SidecarMatrix[]
  readonly dataBytes: number
  /** SHA-256 of the data, zeros between the matrices included. */
  readonly data: string
}

const wholePages = (bytes: number): number => Math.ceil(bytes / FILE_PAGE_BYTES) * FILE_PAGE_BYTES

/** Where the data begins. */
export const dataOffset = (indexBytes: number): number => wholePages(HEADER_BYTES + indexBytes)

const matricesOf = (ffn: FeedForward | undefined): Matrix[] => (ffn ? [ffn.gate, ffn.up, ffn.down] : [])

function layerMatrices({ attention, dense, router, shared, routed }: Layer): Matrix[] {
  const { q, k, v, output } = attention
  return [q, k, v, output, ...matricesOf(dense), ...(router ? [router.gate] : []), ...matricesOf(shared), ...matricesOf(routed)]
}

/** A matrix of the model and its place in the file. */
export interface Packed {
  readonly matrix: Matrix
  readonly place: SidecarMatrix
}

/** What the sidecar of a model holds: every matrix that is large enough to have pages of its own. Pure. */
export function sidecarContents({ embedding, head, layers }: Model): { readonly packed: readonly Packed[]; readonly dataBytes: number } {
  const matrices = [embedding, ...layers.flatMap(layerMatrices), ...(head === embedding ? [] : [head])]
  let dataBytes = 0
  const packed: Packed[] = []
  for (const matrix of matrices) {
    const { tensor, firstRow, rows, columns, experts } = matrix
    const bytes = packedMatrixBytes(matrix) * experts
    if (!ownsPages(bytes)) continue
    packed.push({
      matrix,
      place: { tensor: tensor.name, format: tensor.format, firstRow, rows, columns, experts, offset: dataBytes, bytes },
    })
    dataBytes += wholePages(bytes)
  }
  return { packed, dataBytes }
}
