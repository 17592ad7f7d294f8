/** The WASM side of the comparison: answers the same lines as `twin.c`, from the product's kernels. */
import { readFileSync, writeFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { FORMATS, type FormatName } from '../../src/abi/formats.ts'
import { BenchArena, makeProductFrom, type Product, productBytes, runShare } from '../support/arena.ts'

const SAMPLE_NS = 1e5

let arena: BenchArena | undefined
let product: Product | undefined

const now = (): number => Number(process.hrtime.bigint())
const run = (): void => runShare(arena!.kernels, product!, 0, 1)

/** As `median_ns` in `twin.c`. */
function medianNs(milliseconds: number): number {
  const samples: number[] = []
  let repeats = 1
  for (const end = now() + milliseconds * 1e6; now() < end || samples.length < 3;) {
    const start = now()
    for (let index = 0; index < repeats; index++) run()
    const taken = now() - start
    if (taken < SAMPLE_NS) repeats *= 2
    else samples.push(taken / repeats)
  }
  return samples.sort((a, b) => a - b)[samples.length >> 1]!
}

async function load(words: readonly string[]): Promise<void> {
  const [name, rowsText, sampleText, columnsText, tokensText, weights, x, y] = words
  const format = name as FormatName
  if (!(format in FORMATS)) throw new Error(`no such format: ${name}`)
  const [rows, sampleRows, columns, tokens] = [rowsText, sampleText, columnsText, tokensText].map(Number) as [
    number,
    number,
    number,
    number,
  ]
  arena = await BenchArena.make(productBytes(format, rows, columns, tokens))
  const activations = new Float32Array(Uint8Array.from(readFileSync(x!)).buffer)
  product = makeProductFrom(arena, { format, rows, columns, tokens }, readFileSync(weights!), sampleRows, activations)
  run()
  writeFileSync(y!, arena.bytes(product.y, tokens * rows * 4))
}

for await (const line of createInterface({ input: process.stdin })) {
  const [command, ...words] = line.split(' ')
  if (command === 'case') {
    await load(words)
    process.stdout.write('ok\n')
  } else {
    process.stdout.write(`${medianNs(Number(words[0]))}\n`)
  }
}
