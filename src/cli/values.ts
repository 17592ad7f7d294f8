/** Parsers of option values. What they refuse is wrong usage: exit 2, with the option named by commander. */
import { InvalidArgumentError } from 'commander'
import type { Override } from '../placement/stages.ts'
import { type ExecutorName, EXECUTORS } from '../placement/stages.ts'

const WHOLE = /^[+-]?\d+$/
const DECIMAL = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i

/** A whole number in a range. */
export function whole(low: number, high = Number.MAX_SAFE_INTEGER): (text: string) => number {
  const range = high === Number.MAX_SAFE_INTEGER ? `from ${low}` : `from ${low} to ${high}`
  return (text) => {
    const value = Number(text)
    if (WHOLE.test(text) && Number.isSafeInteger(value) && value >= low && value <= high) return value
    throw new InvalidArgumentError(`It must be a whole number ${range}.`)
  }
}

/** A finite number; the library checks its range. */
export function decimal(text: string): number {
  const value = Number(text)
  if (DECIMAL.test(text) && Number.isFinite(value)) return value
  throw new InvalidArgumentError('It must be a number.')
}

/** `1,2,3`; spaces between are fine. */
export function tokenList(text: string): number[] {
  const parts = text.split(',').map((part) => part.trim())
  const ids = parts.map(Number)
  if (parts.every((part) => /^\d+$/.test(part)) && ids.every(Number.isSafeInteger)) return ids
  throw new InvalidArgumentError('It must be token ids with commas between: 1,2,3.')
}

/** One more value of an option that may be given several times. */
export function another(text: string, earlier: readonly string[] = []): string[] {
  if (text === '') throw new InvalidArgumentError('It must not be empty.')
  return [...earlier, text]
}

const UNITS: Readonly<Record<string, number>> = {
  '': 1,
  B: 1,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  KIB: 2 ** 10,
  MIB: 2 ** 20,
  GIB: 2 ** 30,
  TIB: 2 ** 40,
}

/** A size in bytes: `500MB`, `24GiB`, `1.5 GiB`; without a unit it is bytes. */
export function byteSize(text: string): number {
  const [, number = '', unit = ''] = /^(\d+\.?\d*)\s*([a-z]*)$/i.exec(text.trim()) ?? []
  const bytes = Math.floor(Number(number) * (UNITS[unit.toUpperCase()] ?? Number.NaN))
  if (number !== '' && Number.isSafeInteger(bytes) && bytes >= 1) return bytes
  throw new InvalidArgumentError('It must be a size such as 500MB, 24GiB or 25769803776.')
}

/** `PATTERN=EXECUTOR`, one more of several. The executor is behind the last `=`. */
export function anotherOverride(text: string, earlier: readonly Override[] = []): Override[] {
  const split = text.lastIndexOf('=')
  const executor = text.slice(split + 1)
  if (split < 1 || !EXECUTORS.includes(executor as ExecutorName)) {
    throw new InvalidArgumentError(`It must be PATTERN=EXECUTOR, and the executor ${EXECUTORS.join(' or ')}.`)
  }
  return [...earlier, { pattern: text.slice(0, split), executor: executor as ExecutorName }]
}

/** The entries that are set: an option that was not given must not override a default with `undefined`. */
export function given<Options extends object>(options: Options): { [Key in keyof Options]?: Exclude<Options[Key], undefined> } {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as {
    [Key in keyof Options]?: Exclude<Options[Key], undefined>
  }
}
