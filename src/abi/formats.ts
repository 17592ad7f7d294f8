/**
 * The table of weight formats: one row each, the TypeScript twin of `wasm/formats.h`. `test/unit/abi` checks the two against each other.
 *
 * A tensor's rows are whole numbers of blocks. For the kernels, rows are repacked into **panels**: 8 consecutive rows interleaved, so
 * that one vector holds the same column of several rows. `panelBytes` is one panel's size for one block of columns.
 */

/** What activations are quantised to before they meet a weight of some format. */
export const ACTIVATION = {
  /** f32, unchanged: for float weights. */
  f32: 0,
  /** i8 with one f32 scale per 32 values. */
  q8x32: 1,
  /** i8 with one f32 scale per 256 values. */
  q8x256: 2,
  /** Two q8x32, the second of what the first leaves: their sum has 16 bits. */
  q16x32: 3,
  /** Two q8x256. */
  q16x256: 4,
} as const

/** The name of an activation format. */
export type Activation = keyof typeof ACTIVATION

/** The activation formats that have records; f32 rows are used as they are. */
export type RecordFormat = 'q8x32' | 'q8x256' | 'q16x32' | 'q16x256'

/** How finely activations are quantised before they meet quantised weights: to 8 bits, or to twice 8. */
export type ActivationPrecision = 'q8' | 'q16'

/** All of them. */
export const ACTIVATION_PRECISIONS: readonly ActivationPrecision[] = ['q8', 'q16']

/** One row of the format table. */
export interface Format {
  readonly name: string
  /** ggml's type id, which is also the id used in kernel calls. */
  readonly id: number
  /** Elements per block. */
  readonly blockElements: number
  /** Bytes per block in the file. */
  readonly blockBytes: number
  /** Bytes of one block of columns for 8 interleaved rows, scales included. */
  readonly panelBytes: number
  /** Bytes of a panel behind its blocks. */
  readonly tailBytes: number
  /** What the kernel wants the activations to be; at precision q16 see `activationOf`. */
  readonly activation: 'f32' | 'q8x32' | 'q8x256'
}

const row = (
  name: string,
  id: number,
  blockElements: number,
  blockBytes: number,
  panelBytes: number,
  tailBytes: number,
  activation: Format['activation'],
): Format => ({
  name,
  id,
  blockElements,
  blockBytes,
  panelBytes,
  tailBytes,
  activation,
})

/** Every format that tensors of a model file may have. Block layouts: https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h */
export const FORMATS = {
  F32: row('F32', 0, 1, 4, 32, 0, 'f32'),
  F16: row('F16', 1, 1, 2, 16, 48, 'f32'),
  BF16: row('BF16', 30, 1, 2, 16, 0, 'f32'),
  Q4_0: row('Q4_0', 2, 32, 18, 144, 0, 'q8x32'),
  Q4_1: row('Q4_1', 3, 32, 20, 160, 0, 'q8x32'),
  Q5_0: row('Q5_0', 6, 32, 22, 176, 0, 'q8x32'),
  Q5_1: row('Q5_1', 7, 32, 24, 192, 0, 'q8x32'),
  Q8_0: row('Q8_0', 8, 32, 34, 272, 0, 'q8x32'),
  IQ4_NL: row('IQ4_NL', 20, 32, 18, 144, 0, 'q8x32'),
  MXFP4: row('MXFP4', 39, 32, 17, 136, 0, 'q8x32'),
  Q2_K: row('Q2_K', 10, 256, 84, 672, 0, 'q8x256'),
  Q3_K: row('Q3_K', 11, 256, 110, 880, 0, 'q8x256'),
  Q4_K: row('Q4_K', 12, 256, 144, 1184, 0, 'q8x256'),
  Q5_K: row('Q5_K', 13, 256, 176, 1440, 0, 'q8x256'),
  Q6_K: row('Q6_K', 14, 256, 210, 1680, 0, 'q8x256'),
  IQ4_XS: row('IQ4_XS', 23, 256, 136, 1104, 0, 'q8x256'),
} as const satisfies Record<string, Format>

/** The name of a supported format. */
export type FormatName = keyof typeof FORMATS

const BY_ID: ReadonlyMap<number, Format & { readonly name: FormatName }> = new Map(
  Object.values(FORMATS).map((format) => [format.id, format as Format & { readonly name: FormatName }]),
)

/** The format with a ggml type id, or undefined when Tandem does not support it. */
export function formatById(id: number): (Format & { readonly name: FormatName }) | undefined {
  return BY_ID.get(id)
}

/** Names of ggml type ids that exist but that Tandem cannot read, for error messages. */
export const KNOWN_UNSUPPORTED_FORMATS: ReadonlyMap<number, string> = new Map([
  [9, 'Q8_1'],
  [15, 'Q8_K'],
  [16, 'IQ2_XXS'],
  [17, 'IQ2_XS'],
  [18, 'IQ3_XXS'],
  [19, 'IQ1_S'],
  [21, 'IQ3_S'],
  [22, 'IQ2_S'],
  [24, 'I8'],
  [25, 'I16'],
  [26, 'I32'],
  [27, 'I64'],
  [28, 'F64'],
  [29, 'IQ1_M'],
  [34, 'TQ1_0'],
  [35, 'TQ2_0'],
])

/** Rows interleaved in one panel. */
export const PANEL_ROWS = 8

/** Bytes of one row of `columns` elements as stored in a file. */
export function rowBytes(format: Format, columns: number): number {
  return (columns / format.blockElements) * format.blockBytes
}

/** Bytes of a whole `rows x columns` matrix as panels; rows are padded to a multiple of 8. */
export function packedBytes(format: Format, rows: number, columns: number): number {
  return Math.ceil(rows / PANEL_ROWS) * ((columns / format.blockElements) * format.panelBytes + format.tailBytes)
}

const FINER = { f32: 'f32', q8x32: 'q16x32', q8x256: 'q16x256' } as const

/** What a weight format's kernel wants the activations to be at a precision. */
export function activationOf({ activation }: Format, precision: ActivationPrecision): Activation {
  return precision === 'q16' ? FINER[activation] : activation
}

const ACTIVATION_ORDER = Object.keys(ACTIVATION) as readonly Activation[]

/** Activation formats that some matrices read, without repeats, in a fixed order. */
export function activationsOf(matrices: readonly { readonly activation: Activation }[]): Activation[] {
  return ACTIVATION_ORDER.filter((activation) => matrices.some((matrix) => matrix.activation === activation))
}
