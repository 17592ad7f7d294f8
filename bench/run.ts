/**
 * Every tinybench suite: `npm run bench`.
 *
 *     --filter TEXT    only cases with this in `suite case`: `--filter "kernels Q4_0"`
 *     --seconds S      time per case, default 0.5
 *     --memory MIB     size of the matrices in the suite `memory`, default 1024; make it larger than the last cache
 *     --threads N      default 2
 *     --save           also write bench/results/suites-DATE.jsonl
 *
 * Each suite runs in a process of its own; those that depend on V8's code generation run once plain and once revectorised.
 */
import { spawn } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { openResults, type Results } from './support/results.ts'
import { columns, digits } from './support/statistics.ts'
import type { Suite } from './support/suite.ts'
import type { CaseResult, ProcessSettings } from './support/suite-process.ts'
import { USABLE_MODES, V8_MODES, type V8Mode } from './support/v8-modes.ts'

const folder = new URL('./', import.meta.url)
const suiteProcess = fileURLToPath(new URL('support/suite-process.ts', folder))

const { values } = parseArgs({
  options: {
    filter: { type: 'string', default: '' },
    seconds: { type: 'string', default: '0.5' },
    memory: { type: 'string', default: '1024' },
    threads: { type: 'string', default: '2' },
    save: { type: 'boolean', default: false },
  },
})
const settings: ProcessSettings = {
  filter: values.filter,
  seconds: Number(values.seconds),
  memoryBytes: Number(values.memory) * 2 ** 20,
  threads: Number(values.threads),
}
if (!(settings.seconds > 0 && settings.memoryBytes > 0 && settings.memoryBytes <= 3 * 2 ** 30 && settings.threads >= 1)) {
  throw new Error('--seconds must be above 0, --memory from 1 to 3072 MiB, --threads at least 1')
}

/** The results of one suite in one mode, as they come. */
async function* runSuite(file: string, mode: V8Mode): AsyncGenerator<CaseResult> {
  const child = spawn(process.execPath, [suiteProcess, file, JSON.stringify(settings)], {
    env: { ...process.env, ...V8_MODES[mode] },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const closed = new Promise<number | null>((resolve) => void child.on('close', resolve))
  for await (const line of createInterface({ input: child.stdout })) yield JSON.parse(line) as CaseResult
  const code = await closed
  if (code !== 0) throw new Error(`${file}: the process ended with ${code}`)
}

/** Name, one or two modes, ratio. */
const WIDTHS = [48, 22, 22, 6]

const ratesText = ({ rates }: CaseResult): string => rates.map(({ median, unit }) => `${digits(median)} ${unit}`).join(', ')

/** Runs a suite in each mode and prints one line per case. */
async function report(file: string, suite: Suite, results: Results): Promise<void> {
  const modes: readonly V8Mode[] = suite.bothModes ? USABLE_MODES : ['plain']
  const first = new Map<string, CaseResult>()
  for (const mode of modes) {
    for await (const result of runSuite(file, mode)) {
      if (first.size === 0) {
        results.print(`\n${suite.name}: ${suite.about}`)
        if (modes.length > 1) results.print(columns(['', ...modes, 'ratio'], WIDTHS))
      }
      results.record({ kind: 'case', suite: suite.name, mode, ...result })
      const before = first.get(result.name)
      first.set(result.name, result)
      if (mode !== modes.at(-1)) continue
      const ratio = before ? [(result.rates[0]!.median / before.rates[0]!.median).toFixed(2)] : []
      const cells = [result.name, ...(before ? [ratesText(before)] : []), ratesText(result), ...ratio]
      results.print(columns(cells, WIDTHS))
    }
  }
}

const results = openResults('suites', values.save, {
  filter: settings.filter,
  memoryMiB: settings.memoryBytes / 2 ** 20,
  threads: settings.threads,
})
const files = readdirSync(folder).filter((name) => name.endsWith('.bench.ts'))
for (const name of files.sort()) {
  const file = new URL(name, folder).href
  const { suite } = (await import(file)) as { suite: Suite }
  await report(file, suite, results)
}
results.end()
