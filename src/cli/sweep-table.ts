/** A sweep's rows as the field's table, and several sweeps as one. Pure. */
import type { SweepRow } from './sweep.ts'

/** A row of several sweeps: medians, and the slowest and the fastest. */
export interface SweepSummary extends SweepRow {
  readonly pp_range: readonly [number, number]
  readonly tg_range: readonly [number, number]
}

const COLUMNS = ['   PP', '    TG', '  N_KV', '  T_PP s', 'S_PP t/s', '  T_TG s', 'S_TG t/s'] as const
const RANGE_COLUMNS = ['    S_PP t/s range', '    S_TG t/s range'] as const

const columns = (hasRanges: boolean): readonly string[] => (hasRanges ? [...COLUMNS, ...RANGE_COLUMNS] : COLUMNS)
const line = (cells: readonly string[]): string => `|${cells.map((cell) => ` ${cell} `).join('|')}|\n`

/** Heading and rule, two lines. */
export function sweepHeading(hasRanges: boolean): string {
  const names = columns(hasRanges)
  return `${line(names)}|${names.map((name) => '-'.repeat(name.length + 2)).join('|')}|\n`
}

/** One line. */
export function sweepLine(row: SweepRow | SweepSummary): string {
  const range = ([low, high]: readonly [number, number]): string => `${low.toFixed(2)} - ${high.toFixed(2)}`
  const cells = [
    `${row.pp}`,
    `${row.tg}`,
    `${row.n_kv}`,
    row.t_pp.toFixed(3),
    row.speed_pp.toFixed(2),
    row.t_tg.toFixed(3),
    row.speed_tg.toFixed(2),
    ...('pp_range' in row ? [range(row.pp_range), range(row.tg_range)] : []),
  ]
  const names = columns('pp_range' in row)
  return line(cells.map((cell, column) => cell.padStart(names[column]!.length)))
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = (sorted.length - 1) / 2
  return (sorted[Math.floor(middle)]! + sorted[Math.ceil(middle)]!) / 2
}

/** The same depth of several sweeps, at least one. */
export function summarize(rows: readonly SweepRow[]): SweepSummary {
  const of = (key: 't_pp' | 'speed_pp' | 't_tg' | 'speed_tg'): number[] => rows.map((row) => row[key])
  const range = (values: readonly number[]): [number, number] => [Math.min(...values), Math.max(...values)]
  return {
    ...rows[0]!,
    t_pp: median(of('t_pp')),
    speed_pp: median(of('speed_pp')),
    t_tg: median(of('t_tg')),
    speed_tg: median(of('speed_tg')),
    pp_range: range(of('speed_pp')),
    tg_range: range(of('speed_tg')),
  }
}
