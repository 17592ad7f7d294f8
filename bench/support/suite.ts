/** What a `*.bench.ts` file exports. `bench/run.ts` runs each suite in a process of its own. */

/** One thing that is timed. */
export interface Case {
  readonly name: string
  /** What one run does: bytes or operations for a rate, repetitions for a time. */
  readonly work: readonly Work[]
  /** Throws when the result is wrong. Runs before anything is timed. */
  readonly check: () => void | Promise<void>
  /** What is timed; runs as often as the time allows. */
  readonly run: () => void | Promise<void>
}

/** The count behind a rate, from the operation's own formula. */
export interface Work {
  readonly amount: number
  readonly unit: 'GB/s' | 'GOP/s' | 'us' | 'Mtokens/s'
}

/** Settings that reach every suite. */
export interface Settings {
  /** Bytes of the matrices that lie in memory, beyond any cache. */
  readonly memoryBytes: number
  readonly threads: number
  /** Cases are left out when this does not occur in `suite case`. */
  readonly filter: string
}

/** A suite. `cases` yields them one by one, so that only one has its memory at a time. */
export interface Suite {
  readonly name: string
  readonly about: string
  /** Runs once plain and once revectorised. */
  readonly bothModes: boolean
  readonly cases: (settings: Settings) => AsyncIterable<Case> | Iterable<Case>
}

/** True when a case is wanted; suites with costly preparation ask before they prepare. */
export function isWanted(settings: Settings, suite: string, name: string): boolean {
  return settings.filter === '' || `${suite} ${name}`.includes(settings.filter)
}

/** Throws unless `isTrue`: what checks are made of. */
export function expect(isTrue: boolean, what: string): void {
  if (!isTrue) throw new Error(`wrong result: ${what}`)
}
