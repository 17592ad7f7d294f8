/**
 * Timelines as a trace that a browser shows (ui.perfetto.dev, chrome://tracing): the Trace Event Format's complete events, one row for each thread
 * or GPU stream, ts and dur in microseconds. https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
 */
import type { Timeline } from './timeline.ts'

/** What an event is called, and the layer it belongs to if it has one. */
export interface TraceLabel {
  readonly name: string
  readonly layer?: number
}

/** One row of the picture. */
export interface TraceRow {
  /** Such as `wasm worker 3` or `cuda:0`. */
  readonly name: string
  /** Rows of a group are shown together: `wasm`, `cuda`, `main`. */
  readonly group: string
  readonly label: (entry: number) => TraceLabel
  readonly timeline: Timeline
}

const us = (ns: number): number => Math.round(ns) / 1000

/** When the first event of any row began. */
function originOf(rows: readonly TraceRow[]): number {
  let origin = Infinity
  for (const { timeline } of rows) {
    for (const { startNs } of timeline.events()) {
      origin = Math.min(origin, startNs)
      break
    }
  }
  return origin
}

/** The trace as pieces of JSON text, to be written one after the other. Time begins with the first event. */
export function* traceJson(rows: readonly TraceRow[]): Generator<string> {
  const originNs = originOf(rows)
  const groups = [...new Set(rows.map(({ group }) => group))]
  const dropped = rows.reduce((sum, { timeline }) => sum + timeline.dropped, 0)
  yield `{"displayTimeUnit":"ns","otherData":${JSON.stringify({ dropped })},"traceEvents":[\n`
  const meta = (pid: number, tid: number, name: string, value: object): string => JSON.stringify({ ph: 'M', pid, tid, name, args: value })
  const head = groups.flatMap((group, pid) => [
    meta(pid, 0, 'process_name', { name: group }),
    meta(pid, 0, 'process_sort_index', { sort_index: pid }),
  ])
  rows.forEach((row, tid) => {
    const pid = groups.indexOf(row.group)
    head.push(meta(pid, tid, 'thread_name', { name: row.name }), meta(pid, tid, 'thread_sort_index', { sort_index: tid }))
  })
  yield head.join(',\n')
  for (const [tid, row] of rows.entries()) {
    const pid = groups.indexOf(row.group)
    for (const { startNs, endNs, entry, waitNs } of row.timeline.events()) {
      const { name, layer } = row.label(entry)
      const args = { ...(layer === undefined ? {} : { layer }), ...(waitNs > 0 ? { waitUs: us(waitNs) } : {}) }
      const event = { ph: 'X', pid, tid, name, cat: row.group, ts: us(startNs - originNs), dur: us(endNs - startNs), args }
      yield `,\n${JSON.stringify(event)}`
    }
  }
  yield '\n]}\n'
}
