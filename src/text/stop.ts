/** Stop strings over a stream of text, however it is cut into chunks. */
import { TandemError } from '../errors.ts'

/** What a chunk lets through. */
export interface StopResult {
  /** Text that is certainly in front of any stop string. */
  readonly text: string
  readonly stopped: boolean
  /** The stop string that ended the text. */
  readonly match?: string
}

/** Watches a stream for stop strings. */
export interface StopMatcher {
  /** Takes a chunk. After a match all further text is dropped. */
  push(text: string): StopResult
  /** The text that was held back because a stop string might have begun with it. Empty after a match. */
  flush(): string
}

/**
 * A matcher for any number of stop strings. The match that is complete first wins; of two complete at the same character, the longer.
 * One automaton per string (Knuth, Morris, Pratt), so time is linear in the text and a chunk boundary makes no difference.
 * Throws `ERR_ARGUMENT` for an empty stop string.
 */
export function createStopMatcher(stops: readonly string[]): StopMatcher {
  const automata = stops.map((stop) => {
    if (typeof stop !== 'string' || stop === '') throw new TandemError('ERR_ARGUMENT', 'stop: a stop string must not be empty')
    return { stop, fallback: failureTable(stop), matched: 0 }
  })
  let held = ''
  let match: string | undefined

  return {
    push(text) {
      if (match !== undefined) return { text: '', stopped: true, match }
      const all = held + text
      for (let i = held.length; i < all.length; i++) {
        const unit = all.charCodeAt(i)
        for (const automaton of automata) {
          const { stop, fallback } = automaton
          let matched = automaton.matched
          while (matched > 0 && stop.charCodeAt(matched) !== unit) matched = fallback[matched - 1] ?? 0
          if (stop.charCodeAt(matched) === unit) matched++
          automaton.matched = matched
          if (matched === stop.length && stop.length > (match?.length ?? 0)) match = stop
        }
        if (match === undefined) continue
        held = ''
        return { text: all.slice(0, i + 1 - match.length), stopped: true, match }
      }
      const keep = Math.max(0, ...automata.map((automaton) => automaton.matched))
      held = all.slice(all.length - keep)
      return { text: all.slice(0, all.length - keep), stopped: false }
    },
    flush() {
      const rest = held
      held = ''
      for (const automaton of automata) automaton.matched = 0
      return rest
    },
  }
}

/** For each prefix of `text`, the length of its longest proper prefix that is also its suffix. */
function failureTable(text: string): Int32Array {
  const table = new Int32Array(text.length)
  for (let i = 1, length = 0; i < text.length; i++) {
    while (length > 0 && text.charCodeAt(i) !== text.charCodeAt(length)) length = table[length - 1] ?? 0
    if (text.charCodeAt(i) === text.charCodeAt(length)) length++
    table[i] = length
  }
  return table
}
