/** Sweeps as a picture: speed of prefill and of decode against the depth of the cache, a line per configuration. Pure. */
import { type Axis, depthAxis, valueAxis } from './chart-axis.ts'
import type { SweepSummary } from './sweep-table.ts'
import { countText } from './text.ts'

/** A line in both panels. */
export interface Series {
  readonly label: string
  readonly rows: readonly SweepSummary[]
}

/** What is drawn. */
export interface SweepChart {
  readonly title: string
  /** Lines under the title: the machine, and how it was measured. */
  readonly notes: readonly string[]
  readonly series: readonly Series[]
}

/** Pixels. */
const WIDTH = 960
const MARGIN = 24
const PANEL = { width: 396, height: 260, left: 60, gap: 60, inset: 14 } as const
const LINE = 18
const LEGEND_FONT = 13
/** An upper estimate: there is nothing here that could measure text. */
const CHARACTER = 7.6
const KEY_WIDTH = 34
/** Of a long sweep, about so many points are marked. */
const MARKED_POINTS = 24

/**
 * Colours that people who see fewer of them tell apart (Okabe and Ito), darker or lighter where the background needs it; markers and dashes differ
 * as well. Light, dark.
 */
const COLOURS = [
  ['#0072b2', '#56b4e9'],
  ['#d55e00', '#ff9a52'],
  ['#008060', '#2fc79a'],
  ['#a8467f', '#e39ac4'],
  ['#7a6200', '#f0e442'],
  ['#404040', '#d0d0d0'],
] as const

/** From the seventh line on. */
const DASHES = ['', '6 3', '2 3'] as const

const STYLE = `
text { font: 12px system-ui, -apple-system, "Segoe UI", "Helvetica Neue", "DejaVu Sans", sans-serif; fill: #24292f }
.background { fill: #ffffff } .title { font-size: 17px; font-weight: 600 } .panel { font-size: 14px; font-weight: 600 } .legend { font-size: ${LEGEND_FONT}px }
.note { fill: #57606a } .tick { fill: #57606a; font-size: 11.5px }
.grid { stroke: #d8dee4; stroke-width: 1 } .axis { stroke: #57606a; stroke-width: 1; fill: none }
.line { fill: none; stroke-width: 2; stroke-linejoin: round } .whisker { fill: none; stroke-width: 1.2; opacity: 0.65 } .marker { stroke-width: 0 }
${COLOURS.map(([light], index) => `.c${index} { stroke: ${light} } .f${index} { fill: ${light}; stroke: ${light} }`).join('\n')}
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .background { fill: #0d1117 } .note, .tick { fill: #9da7b3 } .grid { stroke: #2b323b } .axis { stroke: #9da7b3 }
${COLOURS.map(([, dark], index) => `.c${index} { stroke: ${dark} } .f${index} { fill: ${dark}; stroke: ${dark} }`).join('\n')}
}`

const ESCAPES: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' }

/** Text that may come from a file's name or metadata. */
const escaped = (text: string): string =>
  // oxlint-disable-next-line no-control-regex -- XML knows no way to write them
  text.replaceAll(/[\u0000-\u001F\u007F\uFFFE\uFFFF]/g, ' ').replaceAll(/[&<>"]/g, (character) => ESCAPES[character]!)

const px = (value: number): string => `${Number(value.toFixed(1))}`
const speedText = (value: number): string => (value >= 1000 ? countText(Math.round(value)) : `${Number(value.toPrecision(4))}`)

/** The ways a line looks, by its number. */
const colourOf = (index: number): number => index % COLOURS.length

function linePath(index: number, d: string): string {
  const dashes = DASHES[Math.floor(index / COLOURS.length) % DASHES.length]!
  return `<path class="line c${colourOf(index)}"${dashes === '' ? '' : ` stroke-dasharray="${dashes}"`} d="${d}"/>`
}

/** Shapes of about the same area around (x, y). */
const MARKERS: readonly ((x: number, y: number) => string)[] = [
  (x, y) => `M${px(x - 3.6)} ${px(y)}a3.6 3.6 0 1 0 7.2 0a3.6 3.6 0 1 0 -7.2 0Z`,
  (x, y) => `M${px(x - 3.3)} ${px(y - 3.3)}h6.6v6.6h-6.6Z`,
  (x, y) => `M${px(x)} ${px(y - 4.6)}l4.6 8h-9.2Z`,
  (x, y) => `M${px(x)} ${px(y - 4.8)}l4.8 4.8l-4.8 4.8l-4.8 -4.8Z`,
  (x, y) => `M${px(x)} ${px(y + 4.6)}l4.6 -8h-9.2Z`,
  (x, y) => `M${px(x - 1.3)} ${px(y - 4.4)}h2.6v3.1h3.1v2.6h-3.1v3.1h-2.6v-3.1h-3.1v-2.6h3.1Z`,
]

const marker = (index: number, x: number, y: number): string => MARKERS[index % MARKERS.length]!(x, y)

interface Place {
  readonly key: Series
  readonly index: number
  readonly x: number
  readonly line: number
}

/** Where the keys stand: as many beside each other as fit. */
function legendPlaces(series: readonly Series[]): Place[] {
  let x = MARGIN
  let line = 0
  return series.map((key, index) => {
    const width = KEY_WIDTH + key.label.length * CHARACTER + 20
    if (x > MARGIN && x + width > WIDTH - MARGIN) {
      x = MARGIN
      line++
    }
    const place = { key, index, x, line }
    x += width
    return place
  })
}

function legend(places: readonly Place[], top: number): string[] {
  return places.map(({ key, index, x, line }) => {
    const y = top + line * LINE
    return (
      linePath(index, `M${px(x)} ${y}h26`) +
      `<path class="marker f${colourOf(index)}" d="${marker(index, x + 13, y)}"/>` +
      `<text class="legend" x="${px(x + KEY_WIDTH)}" y="${y + 4.5}">${escaped(key.label)}</text>`
    )
  })
}

/** What one panel shows of a row. */
interface Quantity {
  readonly name: string
  readonly speed: (row: SweepSummary) => number
  readonly range: (row: SweepSummary) => readonly [number, number]
}

const QUANTITIES: readonly Quantity[] = [
  { name: 'Prefill', speed: (row) => row.speed_pp, range: (row) => row.pp_range },
  { name: 'Decode', speed: (row) => row.speed_tg, range: (row) => row.tg_range },
]

/** What is drawn of one series; `xOf`, `yOf`: pixels of a depth and of a speed. */
function lineOf(
  { label, rows }: Series,
  index: number,
  { speed, range }: Omit<Quantity, 'name'>,
  xOf: (depth: number) => number,
  yOf: (speed: number) => number,
): { readonly whiskers: string; readonly line: string; readonly markers: readonly string[] } {
  const colour = colourOf(index)
  const every = Math.ceil(rows.length / MARKED_POINTS)
  const marked = rows.filter((_, i) => i % every === 0 || i === rows.length - 1)
  const whiskers = marked
    .filter((row) => range(row)[1] > range(row)[0])
    .map((row) => {
      const [low, high] = range(row)
      return `M${px(xOf(row.n_kv) - 4)} ${px(yOf(high))}h8m-4 0V${px(yOf(low))}m-4 0h8`
    })
  const markers = marked.map((row) => {
    const [low, high] = range(row)
    const spread = high > low ? ` (${speedText(low)} .. ${speedText(high)})` : ''
    const told = `${escaped(label)}, N_KV ${countText(row.n_kv)}: ${speedText(speed(row))} tokens/s${spread}`
    const shape = marker(index, xOf(row.n_kv), yOf(speed(row)))
    return `<path class="marker f${colour}" d="${shape}"><title>${told}</title></path>`
  })
  return {
    whiskers: whiskers.length > 0 ? `<path class="whisker c${colour}" d="${whiskers.join('')}"/>` : '',
    line: linePath(index, `M${rows.map((row) => `${px(xOf(row.n_kv))} ${px(yOf(speed(row)))}`).join('L')}`),
    markers,
  }
}

/** One panel; `left`, `top`: the corner of its axes. */
function panel({ name, speed, range }: Quantity, series: readonly Series[], depths: Axis, left: number, top: number): string[] {
  const values = valueAxis(Math.max(...series.flatMap(({ rows }) => rows.map((row) => Math.max(speed(row), range(row)[1])))))
  const bottom = top + PANEL.height
  // whiskers at depth 0 would hide in the axis
  const xOf = (depth: number): number => left + PANEL.inset + (depth / depths.end) * (PANEL.width - 2 * PANEL.inset)
  const yOf = (value: number): number => bottom - (value / values.end) * PANEL.height
  const frame = [
    `<text class="panel" x="${left}" y="${top - 14}">${name}, tokens/s</text>`,
    ...values.ticks.map(
      (tick) =>
        `<path class="grid" d="M${left} ${px(yOf(tick))}h${PANEL.width}"/>` +
        `<text class="tick" text-anchor="end" x="${left - 8}" y="${px(yOf(tick) + 4)}">${tick.toLocaleString('en-US', { maximumFractionDigits: 6 })}</text>`,
    ),
    ...depths.ticks.map(
      (tick) =>
        `<path class="axis" d="M${px(xOf(tick))} ${bottom}v5"/>` +
        `<text class="tick" text-anchor="middle" x="${px(xOf(tick))}" y="${bottom + 19}">${countText(tick)}</text>`,
    ),
    `<path class="axis" d="M${left} ${top}V${bottom}H${left + PANEL.width}"/>`,
    `<text class="note" text-anchor="middle" x="${left + PANEL.width / 2}" y="${bottom + 40}">tokens in the KV cache (N_KV)</text>`,
  ]
  const drawn = series.map((each, index) => lineOf(each, index, { speed, range }, xOf, yOf))
  // whiskers behind every line, and every line behind the markers
  return [...frame, ...drawn.map(({ whiskers }) => whiskers), ...drawn.map(({ line }) => line), ...drawn.flatMap(({ markers }) => markers)]
}

/** A picture that needs nothing else; at least one series, each with at least one row. */
export function sweepSvg({ title, notes, series }: SweepChart): string {
  const places = legendPlaces(series)
  const notesTop = MARGIN + 36
  const legendTop = notesTop + notes.length * LINE + 8
  const top = legendTop + (places.at(-1)!.line + 1) * LINE + 36
  const height = top + PANEL.height + 60
  const rows = series.flatMap((each) => each.rows)
  const depths = depthAxis(
    rows.map(({ n_kv }) => n_kv),
    Math.max(...rows.map(({ pp }) => pp)),
  )
  const body = [
    `<title>${escaped(title)}</title>`,
    `<style>${STYLE}\n</style>`,
    `<rect class="background" width="${WIDTH}" height="${height}"/>`,
    `<text class="title" x="${MARGIN}" y="${MARGIN + 14}">${escaped(title)}</text>`,
    ...notes.map((note, index) => `<text class="note" x="${MARGIN}" y="${notesTop + index * LINE}">${escaped(note)}</text>`),
    ...legend(places, legendTop),
    ...QUANTITIES.flatMap((quantity, index) => panel(quantity, series, depths, PANEL.left + index * (PANEL.width + PANEL.gap), top)),
  ]
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" role="img">\n${body.filter((part) => part !== '').join('\n')}\n</svg>\n`
}
