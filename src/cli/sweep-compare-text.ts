/** What `sweep --compare` found, as tables. Pure. */
import { type ComparedRow, deltaOf } from './sweep-compare.ts'
import { countText, table } from './text.ts'

/** Percent with its sign; `~` where it may be chance. */
const deltaText = (delta: number, overlap: boolean | undefined): string =>
  `${delta > 0 ? '+' : ''}${delta.toFixed(1)} %${overlap === true ? ' ~' : overlap === false ? '  ' : ''}`

/** Geometric mean of what the rows are faster by, %. */
const meanDelta = (pairs: readonly (readonly [number, number])[]): number =>
  deltaOf(1, Math.exp(pairs.reduce((sum, [a, b]) => sum + Math.log(b / a), 0) / pairs.length))

/** Tables for a person, one per configuration. */
export function comparisonText(rows: readonly ComparedRow[], [nameA, nameB]: readonly [string, string]): string {
  const labels = [...new Set(rows.map(({ configuration }) => configuration))]
  const tables = labels.map((label) => {
    const own = rows.filter(({ configuration }) => configuration === label)
    const speeds = (pair: readonly [number, number]): string[] => pair.map((speed) => speed.toFixed(2))
    const hasOverlap = own.some(({ overlap_pp }) => overlap_pp !== undefined)
    const body = [
      ['N_KV', 'S_PP a', 'S_PP b', 'delta', 'S_TG a', 'S_TG b', 'delta'],
      ...own.map((row) => [
        countText(row.n_kv),
        ...speeds(row.speed_pp),
        deltaText(row.delta_pp, row.overlap_pp),
        ...speeds(row.speed_tg),
        deltaText(row.delta_tg, row.overlap_tg),
      ]),
      ...(own.length > 1
        ? [
            [
              'mean',
              '',
              '',
              deltaText(meanDelta(own.map(({ speed_pp }) => speed_pp)), hasOverlap ? false : undefined),
              '',
              '',
              deltaText(meanDelta(own.map(({ speed_tg }) => speed_tg)), hasOverlap ? false : undefined),
            ],
          ]
        : []),
    ]
    const widths = body[0]!.map((_, column) => Math.max(...body.map((row) => row[column]!.length)))
    const flushRight = body.map((row) => row.map((cell, column) => cell.padStart(widths[column]!)))
    return `${label === '' ? '' : `${label}\n`}${table(flushRight)}`
  })
  const hint = rows.some((row) => row.overlap_pp === true || row.overlap_tg === true)
    ? '~: the ranges of the sweeps overlap, it may be chance\n'
    : ''
  return `a: ${nameA}, b: ${nameB}; tokens per second\n\n${tables.join('\n')}${hint}`
}
