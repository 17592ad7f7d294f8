/** Parsers of option values. What they refuse is wrong usage: exit 2, with the option named by commander. */
import { InvalidArgumentError } from 'commander'

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

/** The entries that are set: an option that was not given must not override a default with `undefined`. */
export function given<Options extends object>(options: Options): { [Key in keyof Options]?: Exclude<Options[Key], undefined> } {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as {
    [Key in keyof Options]?: Exclude<Options[Key], undefined>
  }
}
