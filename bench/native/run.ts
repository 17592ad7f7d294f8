/**
 * WASM against native: `npm run bench:native`. The product's kernels, plain and revectorised, and the native twin (twin.h) multiply the same matrices with the
 * same activations, each in a process of its own, in turn: A B C A B C ... One thread, weights in cache. Needs gcc (or $CC) and a CPU with AVX2.
 *
 *     --filter TEXT    only cases with this in `format tokens`: `--filter Q4_K`
 *     --rounds N       default 7
 *     --ms MS          time per case, engine and round, default 100
 *     --save           also write bench/results/native-DATE.jsonl
 */
import { type ChildProcessWithoutNullStreams, execFileSync, spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { FORMATS, packedBytes, type FormatName } from '../../src/abi/formats.ts'
import { nmse, randomRows } from '../../test/conformance/reference.ts'
import { SAMPLE_ROWS, sampleWeights } from '../support/arena.ts'
import { openResults } from '../support/results.ts'
import { columns as cells, digits, spread, spreadText } from '../support/statistics.ts'
import { USABLE_MODES, V8_MODES } from '../support/v8-modes.ts'

const folder = fileURLToPath(new URL('./', import.meta.url))
const cache = fileURLToPath(new URL('../../.cache/', import.meta.url))

const COLUMNS = 2048
const ROWS = 128
const TOKENS = [1, 4, 8, 96]
/** Engines may quantise activations differently, each within its format's rounding. */
const MAX_NMSE = 1e-3
const WIDTHS = [16, 24, 24, 24, 14]

const CC = process.env['CC'] ?? 'gcc'
const CFLAGS = ['-O3', '-march=native', '-std=gnu17', '-Wall', '-Wextra']

const { values } = parseArgs({
  options: {
    filter: { type: 'string', default: '' },
    rounds: { type: 'string', default: '7' },
    ms: { type: 'string', default: '100' },
    save: { type: 'boolean', default: false },
  },
})
const [rounds, milliseconds] = [Number(values.rounds), Number(values.ms)]
if (!(Number.isInteger(rounds) && rounds > 0 && milliseconds > 0)) throw new Error('--rounds must be a whole number from 1, --ms above 0')

/** One process, which answers a line with a line. */
class Engine {
  readonly name: string
  readonly #child: ChildProcessWithoutNullStreams
  readonly #lines: AsyncIterator<string>

  constructor(name: string, command: string, args: readonly string[], env: Readonly<Record<string, string>>) {
    this.name = name
    this.#child = spawn(command, args, { env: { ...process.env, ...env } })
    this.#child.stderr.pipe(process.stderr)
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]()
  }

  async ask(line: string): Promise<string> {
    this.#child.stdin.write(`${line}\n`)
    const answer = await this.#lines.next()
    if (answer.done === true || answer.value.startsWith('error')) throw new Error(`${this.name}: ${answer.value ?? 'ended'} on "${line}"`)
    return answer.value
  }

  close(): void {
    this.#child.stdin.end()
  }
}

function buildTwin(): string {
  mkdirSync(cache, { recursive: true })
  const sources = readdirSync(folder).filter((name) => name.endsWith('.c'))
  const output = join(cache, 'twin')
  execFileSync(CC, [...CFLAGS, ...sources, '-lm', '-o', output], { cwd: folder, stdio: 'inherit' })
  return output
}

/** Loads a case into every engine and compares what they compute with the first one's. */
async function loadCase(engines: readonly Engine[], format: FormatName, tokens: number, temporary: string): Promise<void> {
  const [weights, x] = [join(temporary, 'weights'), join(temporary, 'x')]
  writeFileSync(weights, sampleWeights(format, COLUMNS))
  writeFileSync(x, randomRows(tokens * COLUMNS, 2))
  const outputs: Float32Array[] = []
  for (const [index, engine] of engines.entries()) {
    const y = join(temporary, `y${index}`)
    await engine.ask(`case ${format} ${ROWS} ${SAMPLE_ROWS} ${COLUMNS} ${tokens} ${weights} ${x} ${y}`)
    outputs.push(new Float32Array(Uint8Array.from(readFileSync(y)).buffer))
    const error = nmse(outputs[index]!, outputs[0]!)
    if (!(error < MAX_NMSE)) throw new Error(`${engine.name} computes something else: ${format}, ${tokens} tokens, NMSE ${error}`)
  }
}

const compiler = execFileSync(CC, ['--version'], { encoding: 'utf8' }).split('\n')[0]
const twin = buildTwin()
const results = openResults('native', values.save, { filter: values.filter, compiler, flags: CFLAGS.join(' '), rounds, milliseconds })
results.print(
  `${compiler} ${CFLAGS.slice(0, 2).join(' ')}; ${ROWS} x ${COLUMNS} weights in cache, 1 thread, ${rounds} rounds of ${milliseconds} ms in turn`,
)
results.print('1 and 4 tokens: GB/s of packed weights; 8 and 96: GOP/s. Median (range); share: median of the rounds’ ratios to native\n')

const wasmSide = join(folder, 'wasm-side.ts')
const engines = [
  new Engine('native', twin, [], {}),
  ...USABLE_MODES.map((mode) => new Engine(mode, process.execPath, [wasmSide], V8_MODES[mode])),
]
results.print(cells(['', ...engines.map(({ name }) => name), 'share'], WIDTHS))
const temporary = mkdtempSync(join(tmpdir(), 'tandem-twin-'))
try {
  for (const format of Object.keys(FORMATS) as FormatName[]) {
    for (const tokens of TOKENS) {
      const name = `${format} ${tokens}`
      if (!name.includes(values.filter)) continue
      await loadCase(engines, format, tokens, temporary)
      const inGb = tokens <= 4
      const amount = inGb ? packedBytes(FORMATS[format], ROWS, COLUMNS) : 2 * ROWS * COLUMNS * tokens
      const rates: number[][] = engines.map(() => [])
      for (let round = 0; round < rounds; round++) {
        for (const [index, engine] of engines.entries()) rates[index]!.push(amount / Number(await engine.ask(`time ${milliseconds}`)))
      }
      const shares = rates.map((each) => spread(each.map((rate, round) => rate / rates[0]![round]!)))
      const rows = engines.map((engine, index) => ({ engine: engine.name, rate: spread(rates[index]!), share: shares[index]! }))
      results.record({ kind: 'case', format, tokens, unit: inGb ? 'GB/s' : 'GOP/s', engines: rows })
      const share = shares.slice(1).map(({ median }) => digits(100 * median))
      results.print(cells([`${format} x ${tokens}`, ...rows.map(({ rate }) => spreadText(rate)), `${share.join(' / ')} %`], WIDTHS))
    }
  }
  results.end()
} finally {
  for (const engine of engines) engine.close()
  rmSync(temporary, { recursive: true, force: true })
}
