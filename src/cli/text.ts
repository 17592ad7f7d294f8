/** Numbers and tables for people. */

const UNITS = ['bytes', 'kB', 'MB', 'GB', 'TB'] as const

/** A size with three digits: `12.0 MB`. */
export function bytesText(bytes: number): string {
  let value = bytes
  let unit = 0
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000
    unit++
  }
  return `${unit === 0 ? value : value.toPrecision(3)} ${UNITS[unit]}`
}

/** Whole numbers with thousands apart: `1,234,567`. */
export function countText(count: number): string {
  return count.toLocaleString('en-US')
}

/** An f32 in nine digits, which name every one exactly and are half as long as what JSON would write. */
export const shortFloat = (value: number): number => Number(value.toPrecision(9))

/** Columns of a table; numbers are flush right, text flush left. The first row may be a heading. */
export function table(rows: readonly (readonly (string | number)[])[]): string {
  const columns = Math.max(0, ...rows.map((row) => row.length))
  const widths = Array.from({ length: columns }, (_, column) => Math.max(...rows.map((row) => String(row[column] ?? '').length)))
  const isNumeric = Array.from({ length: columns }, (_, column) => rows.some((row) => typeof row[column] === 'number'))
  const line = (row: readonly (string | number)[]): string =>
    row
      .map((cell, column) => (isNumeric[column] ? String(cell).padStart(widths[column]!) : String(cell).padEnd(widths[column]!)))
      .join('  ')
  return rows.map((row) => `${line(row).trimEnd()}\n`).join('')
}

/** A text on one line and in quotes, cut to `limit` characters; safe to print whatever it holds. */
export function quoted(text: string, limit = 100): string {
  const whole = JSON.stringify(text.length > limit ? text.slice(0, limit) : text).replaceAll(/[\u007F-\u009F]/g, '\uFFFD')
  return text.length > limit ? `${whole} ... (${countText(text.length)} characters)` : whole
}
