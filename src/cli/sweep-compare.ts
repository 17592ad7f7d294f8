/** Two result files of `tandem sweep --json`, or of the field's tool, side by side. Pure. */
import { TandemError } from '../errors.ts'
import type { SweepRow } from './sweep.ts'
import { summarize, type SweepSummary } from './sweep-table.ts'

/** What was measured, by configuration; the empty name is that of a file with a single one. */
export interface SweepResults {
  /** Name of the file. */
  readonly name: string
  readonly configurations: ReadonlyMap<string, readonly SweepSummary[]>
  /** Whether there are several sweeps of anything. */
  readonly isRepeated: boolean
}

/** One depth in both files; a pair is of the first and the second. */
export interface ComparedRow {
  readonly configuration: string
  readonly pp: number
  readonly tg: number
  readonly n_kv: number
  readonly speed_pp: readonly [number, number]
  /** How much faster the second is, %. */
  readonly delta_pp: number
  readonly speed_tg: readonly [number, number]
  readonly delta_tg: number
  /** Whether the ranges of several sweeps overlap: then it may be chance. Absent without several sweeps of both. */
  readonly overlap_pp?: boolean
  readonly overlap_tg?: boolean
}

/** What two files have in common, and what had to be left out. */
export interface Comparison {
  readonly rows: readonly ComparedRow[]
  readonly notes: readonly string[]
}

const KEYS = ['pp', 'tg', 'n_kv', 't_pp', 'speed_pp', 't_tg', 'speed_tg'] as const

const refuse = (what: string): never => {
  throw new TandemError('ERR_ARGUMENT', what)
}

function parseRow(line: string, where: string): SweepRow & { readonly configuration?: unknown } {
  let value: unknown
  try {
    value = JSON.parse(line)
  } catch {
    return refuse(`${where} is not JSON: --compare reads files of tandem sweep --json`)
  }
  const row = (typeof value === 'object' && value !== null ? value : {}) as Readonly<Record<string, unknown>>
  const bad = KEYS.find((key) => typeof row[key] !== 'number' || !(row[key] >= 0))
  if (bad !== undefined) return refuse(`${where} has no number "${bad}": --compare reads files of tandem sweep --json`)
  return row as unknown as SweepRow
}

/** Reads the lines of a file. Throws `ERR_ARGUMENT`. */
export function parseResults(text: string, name: string): SweepResults {
  const found = new Map<string, Map<number, SweepRow[]>>()
  for (const [index, line] of text.split('\n').entries()) {
    if (line.trim() === '') continue
    const row = parseRow(line, `${name}: line ${index + 1}`)
    const label = typeof row.configuration === 'string' ? row.configuration : ''
    const depths = found.get(label) ?? new Map<number, SweepRow[]>()
    found.set(label, depths)
    const rows = depths.get(row.n_kv) ?? []
    const first = rows[0]
    if (first && (first.pp !== row.pp || first.tg !== row.tg)) {
      refuse(
        `${name}: line ${index + 1} is of another sweep than the lines before: pp ${row.pp}, tg ${row.tg}, not ${first.pp}, ${first.tg}`,
      )
    }
    depths.set(row.n_kv, [...rows, row])
  }
  if (found.size === 0) refuse(`${name} has no lines: --compare reads files of tandem sweep --json`)
  const byDepth = (depths: ReadonlyMap<number, readonly SweepRow[]>): SweepSummary[] =>
    [...depths.values()].map(summarize).toSorted((a, b) => a.n_kv - b.n_kv)
  return {
    name,
    configurations: new Map([...found].map(([label, depths]) => [label, byDepth(depths)])),
    isRepeated: [...found.values()].some((depths) => [...depths.values()].some((rows) => rows.length > 1)),
  }
}

/** Pairs of configurations: by name; or the only ones, whatever they are called. */
function pairsOf(a: SweepResults, b: SweepResults): { label: string; rows: readonly [readonly SweepSummary[], readonly SweepSummary[]] }[] {
  if (a.configurations.size === 1 && b.configurations.size === 1) {
    return [{ label: '', rows: [[...a.configurations.values()][0]!, [...b.configurations.values()][0]!] }]
  }
  return [...a.configurations].flatMap(([label, rows]) => {
    const others = b.configurations.get(label)
    return others ? [{ label, rows: [rows, others] as const }] : []
  })
}

/** What is in one file alone. */
function missingNotes(a: SweepResults, b: SweepResults): string[] {
  if (a.configurations.size === 1 && b.configurations.size === 1) return []
  return [[a, b] as const, [b, a] as const].flatMap(([one, other]) =>
    [...one.configurations.keys()]
      .filter((label) => !other.configurations.has(label))
      .map((label) => `note: '${label}' is in ${one.name} alone, and left out`),
  )
}

const namesOf = ({ configurations }: SweepResults): string => [...configurations.keys()].map((label) => `'${label}'`).join(', ')
/** How much more `b` is, %. */
export const deltaOf = (a: number, b: number): number => Number((100 * (b / a - 1)).toFixed(2))
const overlaps = (a: readonly [number, number], b: readonly [number, number]): boolean => a[0] <= b[1] && b[0] <= a[1]

/** The depths that both have. Throws `ERR_ARGUMENT` when there are none, or when they measured different things. */
export function compareResults(a: SweepResults, b: SweepResults): Comparison {
  const notes = missingNotes(a, b)
  const pairs = pairsOf(a, b)
  if (pairs.length === 0) {
    refuse(`the files have no configuration in common: ${a.name} has ${namesOf(a)}, ${b.name} has ${namesOf(b)}`)
  }
  const isRepeated = a.isRepeated && b.isRepeated
  const rows = pairs.flatMap(({ label, rows: [before, after] }) => {
    const of = label === '' ? '' : `'${label}': `
    const common = before.flatMap((row) => {
      const other = after.find(({ n_kv }) => n_kv === row.n_kv)
      return other ? [[row, other] as const] : []
    })
    if (common.length === 0) refuse(`${of}${a.name} and ${b.name} have no depth (n_kv) in common: sweep both with the same --ubatch`)
    const left = before.length + after.length - 2 * common.length
    if (left > 0) notes.push(`note: ${of}${left} depths are in one of the files alone, and left out`)
    return common.map(([row, other]) => compareRow(label, row, other, isRepeated, [a.name, b.name]))
  })
  return { rows, notes }
}

function compareRow(
  configuration: string,
  a: SweepSummary,
  b: SweepSummary,
  isRepeated: boolean,
  [nameA, nameB]: readonly [string, string],
): ComparedRow {
  if (a.pp !== b.pp || a.tg !== b.tg) {
    refuse(
      `at n_kv ${a.n_kv} ${nameA} has pp ${a.pp}, tg ${a.tg}, and ${nameB} pp ${b.pp}, tg ${b.tg}: sweep both with the same --ubatch and --tg`,
    )
  }
  return {
    configuration,
    pp: a.pp,
    tg: a.tg,
    n_kv: a.n_kv,
    speed_pp: [a.speed_pp, b.speed_pp],
    delta_pp: deltaOf(a.speed_pp, b.speed_pp),
    speed_tg: [a.speed_tg, b.speed_tg],
    delta_tg: deltaOf(a.speed_tg, b.speed_tg),
    ...(isRepeated ? { overlap_pp: overlaps(a.pp_range, b.pp_range), overlap_tg: overlaps(a.tg_range, b.tg_range) } : {}),
  }
}
