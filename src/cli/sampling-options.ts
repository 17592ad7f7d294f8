/** Options of the commands that sample: names, descriptions, and what the engine gets. */
import type { Command } from 'commander'
import type { GenerateOptions } from '../engine/generate.ts'
import { resolveSampling } from '../sampling/options.ts'
import { another, decimal, given, whole } from './values.ts'

/** What commander makes of the options. */
export interface SamplingFlags {
  readonly maxTokens?: number
  readonly temperature?: number
  readonly topK?: number
  readonly topP?: number
  readonly minP?: number
  readonly repetitionPenalty?: number
  readonly repetitionWindow?: number
  readonly seed?: number
  readonly stop?: readonly string[]
}

/** Adds the options; the library fills in defaults and checks ranges. */
export function addSamplingOptions(command: Command): Command {
  return command
    .option('--max-tokens <n>', 'stop after this many tokens (default: at the end of the answer or of the context)', whole(0))
    .option('--temperature <t>', '0 takes the most likely token; higher is more varied (default: 0)', decimal)
    .option('--top-k <n>', 'keep the n most likely tokens, 0 keeps all (default: 0)', whole(0))
    .option('--top-p <p>', 'keep the most likely tokens up to this probability in all (default: 1)', decimal)
    .option('--min-p <p>', 'keep tokens at least this many times as likely as the best (default: 0)', decimal)
    .option('--repetition-penalty <x>', 'above 1 makes recent tokens less likely (default: 1)', decimal)
    .option('--repetition-window <n>', 'how many tokens count as recent (default: 64)', whole(0))
    .option('--seed <n>', 'the same seed gives the same text (default: a random one)', whole(0))
    .option('--stop <text>', 'stop before this text; may be given several times', another)
}

/** The engine's options, checked: nobody wants to wait for a model to load and then hear of a typing error. Throws `ERR_ARGUMENT`. */
export function samplingOptions(flags: SamplingFlags): GenerateOptions {
  const { maxTokens, temperature, topK, topP, minP, repetitionPenalty, repetitionWindow, seed, stop } = flags
  const sampling = given({ temperature, topK, topP, minP, repetitionPenalty, repetitionWindow, seed })
  resolveSampling(sampling)
  return { ...sampling, ...given({ maxTokens, stop }) }
}
