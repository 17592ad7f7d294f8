/** Turns what a caller asks for into limits, with defaults that suit the model and the machine. */
import { ACTIVATION_PRECISIONS, type ActivationPrecision } from '../abi/formats.ts'
import { KV_BLOCK_TOKENS } from '../abi/kernels.ts'
import { TandemError } from '../errors.ts'
import type { Hyperparameters } from '../model/types.ts'
import { MAX_ARENA_BYTES } from '../ring/arena.ts'
import type { Limits, Machine } from './types.ts'

/** Limits that a caller may set; see `Limits` for units. */
export type LimitOptions = { readonly [Key in keyof Limits]?: Limits[Key] | undefined }

const DEFAULT_CONTEXT_TOKENS = 4096
const DEFAULT_UBATCH = 512
const DEFAULT_SEQUENCES = 32
const DEFAULT_OUTPUTS = 32
const MAX_OUTPUTS = 8192
const MAX_THREADS = 512

function whole(name: string, value: number | undefined, fallback: number, max: number): number {
  const chosen = value ?? fallback
  if (!Number.isInteger(chosen) || chosen < 1 || chosen > max) {
    throw new TandemError('ERR_ARGUMENT', `${name} must be a whole number from 1 to ${max}, not ${chosen}`)
  }
  return chosen
}

function precision(chosen: ActivationPrecision = 'q8'): ActivationPrecision {
  if (ACTIVATION_PRECISIONS.includes(chosen)) return chosen
  throw new TandemError('ERR_ARGUMENT', `activations must be ${ACTIVATION_PRECISIONS.join(' or ')}, not ${JSON.stringify(chosen)}`)
}

/** Validated limits. `reserved`: cores that are no use to the pool, such as the one that watches a GPU. Throws `ERR_ARGUMENT`. */
export function resolveLimits(hyper: Hyperparameters, machine: Machine, options: LimitOptions = {}, reserved = 0): Limits {
  const trained = hyper.contextTokens
  const contextTokens = whole('contextTokens', options.contextTokens, Math.min(trained, DEFAULT_CONTEXT_TOKENS), trained)
  const sequences = whole('sequences', options.sequences, DEFAULT_SEQUENCES, 4096)
  const ubatch = whole('ubatch', options.ubatch, Math.max(sequences, Math.min(DEFAULT_UBATCH, contextTokens)), 8192)
  const kvTokens = whole('kvTokens', options.kvTokens, contextTokens, contextTokens * sequences + KV_BLOCK_TOKENS * sequences)
  return {
    contextTokens,
    sequences,
    ubatch,
    // room for one sequence of full length even when the lengths do not divide by the block
    kvTokens: Math.ceil(kvTokens / KV_BLOCK_TOKENS) * KV_BLOCK_TOKENS,
    // a step cannot have more outputs than tokens
    outputs: Math.min(ubatch, whole('outputs', options.outputs, Math.max(sequences, DEFAULT_OUTPUTS), MAX_OUTPUTS)),
    threads: whole('threads', options.threads, Math.max(1, (machine.physicalCores ?? machine.cores) - reserved), MAX_THREADS),
    arenaBytes: whole('arenaBytes', options.arenaBytes, MAX_ARENA_BYTES, MAX_ARENA_BYTES),
    activations: precision(options.activations),
  }
}

/** Bytes of one layer's keys on a GPU, where they are f16; its values have as many. */
export function deviceCacheBytes({ kvHeads, headDim }: Hyperparameters, { kvTokens }: Limits): number {
  return kvTokens * kvHeads * headDim * 2
}
