/**
 * Rewrites the tables of docs/performance.md from the newest complete files in bench/results: `node bench/tables.ts`. A table is what stands between
 * `<!-- begin NAME -->` and `<!-- end NAME -->`.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { headerText } from './support/header.ts'
import { digits, type Spread, spreadText } from './support/statistics.ts'
import type { CaseResult } from './support/suite-process.ts'

type Line = Readonly<Record<string, unknown>>

/** One saved run. */
interface Run {
  readonly header: Line
  readonly lines: readonly Line[]
}

const page = fileURLToPath(new URL('../docs/performance.md', import.meta.url))
const folder = fileURLToPath(new URL('results/', import.meta.url))

/** Runs of a benchmark, newest first; those that were filtered or did not end are left out. */
function runsOf(bench: string): Run[] {
  const names = readdirSync(folder).filter((name) => name.startsWith(`${bench}-`))
  const runs = names
    .sort()
    .toReversed()
    .map((name) => {
      const [header, ...lines] = readFileSync(`${folder}${name}`, 'utf8').trim().split('\n')
      return { header: JSON.parse(header!) as Line, lines: lines.map((line) => JSON.parse(line) as Line) }
    })
  return runs.filter(({ header, lines }) => header['filter'] === '' && lines.at(-1)?.['kind'] === 'end')
}

const tableRow = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`
const table = (head: readonly string[], rows: readonly (readonly string[])[]): string =>
  [tableRow(head), tableRow(head.map((_, index) => (index === 0 ? '---' : '---:'))), ...rows.map(tableRow)].join('\n')
const dated = (header: Line, text: string): string => `${headerText(header)}.\n\n${text}`

/** Cases of some suites of the newest run, a column per V8 mode. */
function suitesTable(...suites: string[]): string | undefined {
  const [run] = runsOf('suites')
  if (!run) return undefined
  const cells = new Map<string, Map<string, string>>()
  for (const line of run.lines.slice(0, -1) as unknown as readonly (Line & CaseResult & { suite: string; mode: string })[]) {
    if (!suites.includes(line.suite)) continue
    const name = suites.length > 1 ? `${line.suite}: ${line.name}` : line.name
    const modes = cells.get(name) ?? new Map<string, string>()
    modes.set(line.mode, line.rates.map(({ median, unit }) => `${digits(median)} ${unit}`).join(', '))
    cells.set(name, modes)
  }
  const modes = [...new Set([...cells.values()].flatMap((each) => [...each.keys()]))]
  const rows = [...cells].map(([name, each]) => [name, ...modes.map((mode) => each.get(mode) ?? '')])
  return dated(run.header, table(['', ...(modes.length > 1 ? modes : ['median'])], rows))
}

function nativeTable(): string | undefined {
  const [run] = runsOf('native')
  if (!run) return undefined
  const lines = run.lines.slice(0, -1) as unknown as readonly (Line & {
    engines: readonly { engine: string; rate: Spread; share: Spread }[]
  })[]
  const names = lines[0]!.engines.map(({ engine }) => engine)
  const rows = lines.map((line) => [
    `${String(line['format'])} x ${String(line['tokens'])}, ${String(line['unit'])}`,
    ...line.engines.map(({ rate }) => spreadText(rate)),
    ...line.engines.slice(1).map(({ share }) => `${digits(100 * share.median)} %`),
  ])
  return dated(run.header, table(['', ...names, ...names.slice(1).map((name) => `${name} / native`)], rows))
}

/** The newest comparison of every model file and code path. */
function peersTable(): string | undefined {
  const newest = new Map<string, Run>()
  for (const run of runsOf('peers')) {
    const { model, plain } = run.header
    const name = `${String(model)}${plain === true ? ', Tandem plain' : ''}`
    if (!newest.has(name)) newest.set(name, run)
  }
  const rows = [...newest]
    .sort(([a], [b]) => a.localeCompare(b))
    .flatMap(([name, { lines }]) =>
      lines
        .filter((line) => line['kind'] === 'result')
        .map((line) => {
          const engines = line['engines'] as readonly { rate: Spread }[]
          const test = `${name}: ${String(line['test'])} ${String(line['tokens'])}`
          return [test, ...engines.map(({ rate }) => spreadText(rate)), spreadText(line['ratio'] as Spread)]
        }),
    )
  const first = [...newest.values()][0]
  if (!first) return undefined
  const rounds = [...newest.values()].map((run) => Number(run.header['rounds']))
  const span = [...new Set([Math.min(...rounds), Math.max(...rounds)])].join(' to ')
  const about = first.lines.filter((line) => line['kind'] === 'engine').map((line) => String(line['about']))
  return dated(first.header, `${about.join('; ')}; ${span} rounds.\n\n${table(['tokens/s', 'Tandem', 'node-llama-cpp', 'ratio'], rows)}`)
}

/** The newest run of Tandem alone. */
function aloneTable(bench: string): string | undefined {
  const [run] = runsOf(bench)
  const results = run?.lines.filter((line) => line['kind'] === 'result')
  if (!run || !results) return undefined
  const rows = results.map((line) => [String(line['test']), spreadText((line['rate'] ?? line['ratio']) as Spread)])
  return dated(run.header, table([`${String(run.header['model'])}, tokens/s`, 'Tandem'], rows))
}

/** The newest loads of sources and of what was built, for each pause: a column each. */
function loadTable(): string | undefined {
  const newest = new Map<string, Run>()
  for (const run of runsOf('load')) {
    const { built, pause } = run.header
    const column = `${built === true ? 'built' : 'sources'}, ${pause === 0 ? 'one after the other' : `${String(pause)} s apart`}`
    if (!newest.has(column)) newest.set(column, run)
  }
  const columns = [...newest.keys()].sort()
  const runs = columns.map((column) => newest.get(column)!)
  const [first] = runs
  if (!first) return undefined
  const results = runs.map(({ lines }) => lines.filter((line) => line['kind'] === 'result'))
  const rows = results[0]!.map((line, index) => [
    String(line['test']),
    ...results.map((each) => spreadText(each[index]!['rate'] as Spread)),
  ])
  return dated(first.header, table([String(first.header['model']), ...columns], rows))
}

const TABLES = {
  peers: peersTable(),
  batch: aloneTable('batch'),
  tasks: aloneTable('tasks'),
  context: aloneTable('context'),
  load: loadTable(),
  native: nativeTable(),
  kernels: suitesTable('kernels'),
  memory: suitesTable('memory'),
  attention: suitesTable('attention'),
  others: suitesTable('ring', 'fan-in', 'sampler', 'tokenizer'),
}

let text = readFileSync(page, 'utf8')
for (const [name, content] of Object.entries(TABLES)) {
  const [begin, end] = [`<!-- begin ${name} -->`, `<!-- end ${name} -->`]
  const [from, to] = [text.indexOf(begin), text.indexOf(end)]
  if (from < 0 || to < from) throw new Error(`docs/performance.md has no table ${name}`)
  if (content === undefined) {
    process.stderr.write(`no complete results for the table ${name}: left as it is\n`)
    continue
  }
  text = `${text.slice(0, from + begin.length)}\n${content}\n${text.slice(to)}`
}
writeFileSync(page, text)
process.stdout.write(`docs/performance.md: tables rewritten from bench/results\n`)
