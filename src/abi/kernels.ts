/** The kernels' boundary as TypeScript sees it: the twin of `wasm/kernels.h`, which documents every call. Offsets are bytes in the arena. */
import type { Activation } from './formats.ts'

/** What every kernel returns. */
export const KERNEL_STATUS = { ok: 0, format: 1, shape: 2, notFinite: 3 } as const

/** Tokens in one block of the KV cache. */
export const KV_BLOCK_TOKENS = 32

/** Tokens whose keys, or values, of one head lie in a row in the pool's KV cache, which has room for whole rows. */
export const KV_ROW_TOKENS = 1024

/** Keys after which attention's softmax starts anew: what workers share out of one token's context. */
export const ATTENTION_CHUNK_TOKENS = 256

/** Queries (heads of tokens) that `attend` takes through the keys together: as many tokens as that is, but at least one. */
export const ATTENTION_TILE_QUERIES = 128

/** `matmul`: overwrite the output, or add to it; there and in `gated`: the records are q16. */
export const MATMUL = { store: 0, add: 1, q16: 2 } as const

/** `route`: gating functions as GGUF numbers them. */
export const GATING = { softmax: 1, sigmoid: 2 } as const

/* oxlint-disable max-params */
/** The exported functions; parameter names and order are those of the header. */
export interface KernelExports {
  repack(format: number, panels: number, fileRows: number, columns: number, rows: number): number
  dequantize_rows(format: number, y: number, panels: number, ids: number, columns: number, count: number, scratch: number): number
  rms_norm(y: number, x: number, weight: number, columns: number, tokens: number, epsilon: number): number
  quantize(activation: number, records: number, x: number, columns: number, tokens: number): number
  record_bytes(activation: number, columns: number): number
  matmul(
    format: number,
    flags: number,
    y: number,
    yStride: number,
    panels: number,
    x: number,
    xIndex: number,
    yIndex: number,
    scale: number,
    bias: number,
    columns: number,
    rowBegin: number,
    rowEnd: number,
    tokens: number,
    scratch: number,
  ): number
  gated(
    gateFormat: number,
    upFormat: number,
    flags: number,
    h: number,
    hStride: number,
    gate: number,
    up: number,
    x: number,
    xIndex: number,
    columns: number,
    rowBegin: number,
    rowEnd: number,
    tokens: number,
    scratch: number,
  ): number
  rope_store(
    q: number,
    qStride: number,
    k: number,
    v: number,
    kvStride: number,
    keyCache: number,
    valueCache: number,
    cacheRows: number,
    angles: number,
    qNorm: number,
    kNorm: number,
    heads: number,
    kvHeads: number,
    headDim: number,
    rotary: number,
    epsilon: number,
    tokenBegin: number,
    tokenEnd: number,
  ): number
  attend(
    out: number,
    outStride: number,
    q: number,
    qStride: number,
    keyCache: number,
    valueCache: number,
    blockTable: number,
    positions: number,
    tokenBegin: number,
    tokenCount: number,
    kvHead: number,
    heads: number,
    kvHeads: number,
    headDim: number,
    scale: number,
    scratch: number,
  ): number
  attend_part(
    parts: number,
    q: number,
    keyCache: number,
    valueCache: number,
    blockTable: number,
    position: number,
    chunkBegin: number,
    chunkEnd: number,
    kvHead: number,
    heads: number,
    kvHeads: number,
    headDim: number,
    scale: number,
    scratch: number,
  ): number
  attend_merge(out: number, parts: number, chunks: number, heads: number, headDim: number, headBegin: number, headEnd: number): number
  route(
    ids: number,
    weights: number,
    logits: number,
    bias: number,
    gating: number,
    normalize: number,
    scale: number,
    experts: number,
    used: number,
    tokenBegin: number,
    tokenEnd: number,
  ): number
  group(
    offsets: number,
    pairToken: number,
    pairWeight: number,
    ids: number,
    weights: number,
    experts: number,
    used: number,
    tokens: number,
  ): number
  keep_best(ids: number, best: number, logits: number, stride: number, begin: number, end: number, rows: number): number
  combine(x: number, a: number, b: number, count: number): number
}
/* oxlint-enable max-params */

/** Values in a block of each activation format, and the bytes of one block: the structs of `wasm/activations.h`. */
const RECORD_BLOCK: Readonly<Record<Activation, { readonly values: number; readonly bytes: number }>> = {
  f32: { values: 1, bytes: 4 },
  q8x32: { values: 32, bytes: 40 },
  q8x256: { values: 256, bytes: 324 },
  q16x32: { values: 32, bytes: 80 },
  q16x256: { values: 256, bytes: 648 },
}

/** Bytes of one activation record of `columns` values, which are whole blocks. */
export function recordBytes(activation: Activation, columns: number): number {
  const { values, bytes } = RECORD_BLOCK[activation]
  return (columns / values) * bytes
}

/** What `matmul` and `gated` are told of an activation format. */
export const productFlags = (activation: Activation): number => (activation === 'q16x32' || activation === 'q16x256' ? MATMUL.q16 : 0)

/** Bytes of what `attend_part` leaves of one chunk, all heads. */
export function attentionPartBytes(heads: number, headDim: number): number {
  return heads * (headDim + 2) * 4
}

/** Queries of a tile that go through a block together: `BATCH_QUERIES` of `wasm/attention_tile.h`. */
const ATTENTION_BATCH_QUERIES = 16

/**
 * Bytes of scratch that `attend` and `attend_part` use: each query's vectors and softmax, what a batch of them needs for one block, and eight times the
 * integers of a single token's queries and weights, which begin at a multiple of 32.
 */
function attentionScratchBytes(heads: number, headDim: number): number {
  const queries = Math.max(ATTENTION_TILE_QUERIES, heads)
  const wide = ATTENTION_BATCH_QUERIES * (headDim + KV_BLOCK_TOKENS) * 16
  return 6 * queries * headDim + 4 * (12 * queries + ATTENTION_BATCH_QUERIES * (3.5 * KV_BLOCK_TOKENS + 18) + KV_BLOCK_TOKENS) + 32 + wide
}

/** One layer's keys, or its values, in the pool's memory: integers of 16 bits, and before them their scales. */
export function cacheBytes(tokens: number, kvHeads: number, headDim: number): { readonly scales: number; readonly integers: number } {
  const vectors = Math.ceil(tokens / KV_ROW_TOKENS) * KV_ROW_TOKENS * kvHeads
  return { scales: vectors * 4, integers: vectors * headDim * 2 }
}

/** Bytes of scratch per column: prepared records of a chunk of tokens (144 times 356 / 256) and an unpacked panel (2,880 / 256), or two of 9. `wasm/matmul.c` has the chunks. */
const SCRATCH_BYTES_PER_COLUMN = 216

/** Bytes of scratch that any kernel may use, for the widest matrix and the attention's shape of a model. */
export function scratchBytes(columns: number, heads: number, headDim: number): number {
  return 65536 + columns * SCRATCH_BYTES_PER_COLUMN + attentionScratchBytes(heads, headDim)
}
