/** Sampling options and their ranges. */
import { TandemError } from '../errors.ts'

/** How the next token is chosen. Without options: the most likely one. */
export interface SamplingOptions {
  /** Divides the logits before the draw; 0 takes the most likely token. 0 to 1000, default 0. */
  readonly temperature?: number
  /** Keep the `topK` most likely tokens; 0 keeps all. Default 0. */
  readonly topK?: number
  /** Keep the most likely tokens until their probabilities reach `topP`; 1 keeps all. Above 0 up to 1, default 1. */
  readonly topP?: number
  /** Keep tokens at least `minP` times as likely as the most likely one; 0 keeps all. 0 to 1, default 0. */
  readonly minP?: number
  /** Positive logits of recent tokens are divided by it, the others multiplied; 1 is off. 0.01 to 100, default 1. */
  readonly repetitionPenalty?: number
  /** How many of the last tokens, prompt included, count as recent. Tokens, default 64; 0 is none. */
  readonly repetitionWindow?: number
  /** Whole number from 0 to 2^53 - 1. Default: a random one, which the sampler reports. */
  readonly seed?: number
}

/** Options with every default filled in. */
export type ResolvedSampling = Readonly<Required<SamplingOptions>>

interface Range {
  readonly text: string
  readonly holds: (value: number) => boolean
}

const between = (low: number, high: number): Range => ({ text: `from ${low} to ${high}`, holds: (value) => value >= low && value <= high })
const above = (low: number, high: number): Range => ({ text: `above ${low} up to ${high}`, holds: (value) => value > low && value <= high })
const whole = (high: number, text: string): Range => ({
  text: `a whole number from 0 to ${text}`,
  holds: (value) => Number.isInteger(value) && value >= 0 && value <= high,
})

const RANGES: Readonly<Record<keyof SamplingOptions, Range>> = {
  temperature: between(0, 1000),
  topK: whole(2 ** 31 - 1, '2^31 - 1'),
  topP: above(0, 1),
  minP: between(0, 1),
  repetitionPenalty: between(0.01, 100),
  repetitionWindow: whole(2 ** 31 - 1, '2^31 - 1'),
  seed: whole(Number.MAX_SAFE_INTEGER, '2^53 - 1'),
}

const DEFAULTS = { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, repetitionWindow: 64 } as const

/** Fills in defaults and checks ranges. Throws `ERR_ARGUMENT` naming the option and its range. */
export function resolveSampling(options: SamplingOptions): ResolvedSampling {
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as SamplingOptions
  const resolved = { ...DEFAULTS, seed: given.seed ?? randomSeed(), ...given }
  for (const [name, range] of Object.entries(RANGES) as [keyof SamplingOptions, Range][]) {
    const value: unknown = resolved[name]
    if (typeof value === 'number' && range.holds(value)) continue
    throw new TandemError('ERR_ARGUMENT', `${name}: must be ${range.text}, not ${String(value)}`)
  }
  return resolved
}

const randomSeed = (): number => crypto.getRandomValues(new Uint32Array(1))[0] ?? 0
