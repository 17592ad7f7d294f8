/**
 * Fields of a task besides its prompt: those that say how to generate, in OpenAI's spelling and in the library's, those that change nothing, and
 * those that would change the answer in a way Tandem does not do, which are refused unless they ask for nothing.
 */
import { TandemError } from '../errors.ts'
import { resolveSampling, type SamplingOptions } from '../sampling/options.ts'
import type { TaskOptions } from './task.ts'

/** What is wrong with a field. */
export class FieldError extends Error {
  readonly field: string

  constructor(field: string, message: string) {
    super(`${field}: ${message}`)
    this.field = field
  }
}

type Options = { -readonly [Key in keyof TaskOptions]: TaskOptions[Key] }

const SAMPLING: Readonly<Record<string, keyof SamplingOptions>> = {
  temperature: 'temperature',
  top_k: 'topK',
  topK: 'topK',
  top_p: 'topP',
  topP: 'topP',
  min_p: 'minP',
  minP: 'minP',
  repetition_penalty: 'repetitionPenalty',
  repetitionPenalty: 'repetitionPenalty',
  repetition_window: 'repetitionWindow',
  repetitionWindow: 'repetitionWindow',
  seed: 'seed',
}

const MAX_TOKENS = new Set(['max_tokens', 'max_completion_tokens', 'maxTokens'])

/** They say nothing about the text of the answer. */
const IGNORED = new Set([
  ...['model', 'user', 'metadata', 'store', 'service_tier', 'stream_options', 'safety_identifier', 'prompt_cache_key'],
  ...['prompt_cache_retention', 'parallel_tool_calls', 'reasoning_effort', 'verbosity'],
])

const isEmpty = (value: unknown): boolean => typeof value === 'object' && value !== null && Object.keys(value).length === 0

/** The values that ask for nothing special. */
const NEUTRAL: Readonly<Record<string, (value: unknown) => boolean>> = {
  n: (value) => value === 1,
  best_of: (value) => value === 1,
  stream: (value) => value === false,
  echo: (value) => value === false,
  suffix: (value) => value === '',
  logprobs: (value) => value === false,
  top_logprobs: (value) => value === 0,
  logit_bias: isEmpty,
  frequency_penalty: (value) => value === 0,
  presence_penalty: (value) => value === 0,
  tools: isEmpty,
  functions: isEmpty,
  tool_choice: (value) => value === 'none' || value === 'auto',
  function_call: (value) => value === 'none' || value === 'auto',
  response_format: (value) => typeof value === 'object' && value !== null && (value as { type?: unknown }).type === 'text',
  modalities: (value) => Array.isArray(value) && value.every((each) => each === 'text'),
  audio: () => false,
  prediction: () => false,
}

/** Options of the fields of an object; fields in `known` are somebody else's. Null is as good as absent. Throws `FieldError`. */
export function readFields(object: Readonly<Record<string, unknown>>, known: ReadonlySet<string>): TaskOptions {
  const options: Options = {}
  for (const [field, value] of Object.entries(object)) {
    if (!isGiven(value) || known.has(field) || IGNORED.has(field)) continue
    const sampling = Object.hasOwn(SAMPLING, field) ? SAMPLING[field] : undefined
    const isNeutral = Object.hasOwn(NEUTRAL, field) ? NEUTRAL[field] : undefined
    if (sampling) options[sampling] = samplingValue(field, sampling, value)
    else if (MAX_TOKENS.has(field)) options.maxTokens = Math.min(options.maxTokens ?? Infinity, wholeNumber(field, value))
    else if (field === 'stop') options.stop = stopTexts(value)
    else if (!isNeutral) throw new FieldError(field, 'is not a field that Tandem knows; leave it out')
    else if (!isNeutral(value)) throw new FieldError(field, `${shown(value)} is not supported; leave the field out`)
  }
  return options
}

function samplingValue(field: string, option: keyof SamplingOptions, value: unknown): number {
  if (typeof value !== 'number') throw new FieldError(field, `must be a number, not ${shown(value)}`)
  try {
    return resolveSampling({ [option]: value })[option]
  } catch (error) {
    throw new FieldError(field, TandemError.from(error).message.replace(/^\w+: /, ''))
  }
}

function wholeNumber(field: string, value: unknown): number {
  if (Number.isSafeInteger(value) && (value as number) >= 0) return value as number
  throw new FieldError(field, `must be a whole number from 0, not ${shown(value)}`)
}

function stopTexts(value: unknown): readonly string[] {
  const texts: unknown = typeof value === 'string' ? [value] : value
  if (Array.isArray(texts) && texts.every((text) => typeof text === 'string' && text !== '')) return texts as string[]
  throw new FieldError('stop', `must be a text or an array of texts that are not empty, not ${shown(value)}`)
}

/** JSON's null is as good as a field that is not there. */
export const isGiven = (value: unknown): boolean => value !== undefined && value !== null

const SHOWN_CHARACTERS = 60

/** A value in a message. */
export function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value)
  return text.length > SHOWN_CHARACTERS ? `${text.slice(0, SHOWN_CHARACTERS)}...` : text
}
