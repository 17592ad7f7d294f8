/** Every format's matrix product on one thread, weights in cache. Decode: 1 to 8 tokens; prefill: 96. */
import { FORMATS, packedBytes, rowBytes, type FormatName } from '../src/abi/formats.ts'
import { decodeRow, dot, nmse, randomRows } from '../test/conformance/reference.ts'
import { BenchArena, makeProduct, productBytes, type Product, runShare, SAMPLE_ROWS, sampleWeights } from './support/arena.ts'
import { type Case, expect, isWanted, type Settings, type Suite, type Work } from './support/suite.ts'

const COLUMNS = 2048
/** 128 rows of Q4_0 are 144 KiB, of F32 1 MiB: beyond the first level of cache, inside the second. */
const ROWS = 128
const TOKENS = [1, 2, 4, 8, 96]
/** Rounding of activations to 8 bits leaves about 1e-4. */
const MAX_NMSE = 1e-3

/** Packed bytes read, and two operations per weight and token. */
export function productWork({ format, rows, columns, tokens }: Product): Work[] {
  return [
    { amount: packedBytes(FORMATS[format], rows, columns), unit: 'GB/s' },
    { amount: 2 * rows * columns * tokens, unit: 'GOP/s' },
  ]
}

/** Compares the first rows with float64 on the file's own bytes, for the first and the last token. */
export function checkProduct(arena: BenchArena, product: Product): void {
  const { format, rows, columns, tokens, y } = product
  const file = sampleWeights(format, columns)
  const x = randomRows(tokens * columns, 2)
  const stride = rowBytes(FORMATS[format], columns)
  const out = arena.floats(y, tokens * rows)
  for (const token of [0, tokens - 1]) {
    const activation = Float64Array.from(x.subarray(token * columns, (token + 1) * columns))
    const expected = Array.from({ length: 16 }, (_, r) =>
      dot(decodeRow(format, file.subarray(r * stride, (r + 1) * stride), columns), activation),
    )
    const last = rows - SAMPLE_ROWS
    for (const first of [0, last]) {
      const error = nmse(out.subarray(token * rows + first, token * rows + first + 16), expected)
      expect(error < MAX_NMSE, `${format}, token ${token}, rows from ${first}: NMSE ${error}`)
    }
  }
}

async function* cases(settings: Settings): AsyncGenerator<Case> {
  for (const format of Object.keys(FORMATS) as FormatName[]) {
    for (const tokens of TOKENS) {
      const name = `${format} ${tokens} token${tokens > 1 ? 's' : ''}`
      if (!isWanted(settings, 'kernels', name)) continue
      const arena = await BenchArena.make(productBytes(format, ROWS, COLUMNS, tokens))
      const product = makeProduct(arena, format, ROWS, COLUMNS, tokens)
      const run = (): void => runShare(arena.kernels, product, 0, 1)
      const check = (): void => {
        run()
        checkProduct(arena, product)
      }
      yield { name, work: productWork(product), check, run }
    }
  }
}

export const suite: Suite = { name: 'kernels', about: `${ROWS} x ${COLUMNS} weights in cache, 1 thread`, bothModes: true, cases }
