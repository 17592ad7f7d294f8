/** Options of every command that plans or loads a model, and how they become an engine. */
import { createWriteStream } from 'node:fs'
import { pipeline } from 'node:stream/promises'
import { type Command, Option } from 'commander'
import { ACTIVATION_PRECISIONS, type ActivationPrecision } from '../abi/formats.ts'
import type { Engine } from '../engine/engine.ts'
import { loadModel, type LoadOptions, planModel } from '../engine/load-model.ts'
import { TandemError } from '../errors.ts'
import type { Override } from '../placement/stages.ts'
import { POCKET_MODEL } from '../pocket-model.ts'
import type { Io } from './io.ts'
import { anotherOverride, byteSize, whole } from './values.ts'

/** What commander makes of the options. */
export interface EngineFlags {
  readonly pipeline?: string
  readonly threads?: number
  readonly context?: number
  readonly ubatch?: number
  readonly activations?: ActivationPrecision
  readonly kvTokens?: number
  readonly arenaBytes?: number
  readonly gpuLayers?: number
  readonly gpuMemory?: number
  readonly override?: readonly Override[]
  /** False with `--no-overlap`. */
  readonly overlap?: boolean
  readonly sidecar?: string
  /** Of the commands that have `--profile`. */
  readonly profile?: true
  /** File that the trace goes to. */
  readonly trace?: string
}

/** Of several sequences at a time the cache has room for so many of full length by default; more than fit take turns. */
const FULL_LENGTH_SEQUENCES = 8

/** A prompt is worth a bar when it takes longer than this. */
export const PREFILL_BAR_MS = 1000

/** The optional model argument. */
export function addModelArgument(command: Command): Command {
  return command.argument('[model]', 'a GGUF file, any shard of a split one, or a directory with one model (default: the bundled model)')
}

/** The model argument and the options. */
export function addEngineOptions(command: Command): Command {
  return addModelArgument(command)
    .option('--pipeline <name>', 'cpu, hybrid, gpu, or the path of a module that exports a pipeline (default: cpu)')
    .option('--threads <n>', 'worker threads (default: one per physical core)', whole(1))
    .option('-c, --context <tokens>', "longest sequence (default: the model's, at most 4096)", whole(1))
    .option('--ubatch <tokens>', 'tokens that go through a step together (default: at most 512)', whole(1))
    .addOption(
      new Option(
        '--activations <precision>',
        'what activations are rounded to where weights are quantised: q16 is nearly exact, and slower (default: q8)',
      ).choices(ACTIVATION_PRECISIONS),
    )
    .option('--gpu-layers <n>', 'experts of the last N layers on the GPU, beside the rest of the model (hybrid; default: 0)', whole(0))
    .option(
      '--gpu-memory <bytes>',
      'experts of as many layers on the GPU as fit in this much of its memory, such as 24GiB (hybrid)',
      byteSize,
    )
    .option(
      '--override <pattern=executor>',
      "routed experts whose tensors' names match on wasm or cuda, such as 'blk\\.(4|5)\\.ffn_.*_exps=cuda'; again for more, the first match decides",
      anotherOverride,
    )
    .option('--sidecar <path>', 'map the repacked weights of tandem repack; auto for the file beside the model (default: none)')
    .option('--trace <file>', 'write what every worker and GPU stream did when, for ui.perfetto.dev')
    .option('--no-overlap', 'let the GPU wait for the routed experts before it computes the shared ones')
    .addOption(new Option('--kv-tokens <tokens>', 'size of the KV cache (default: the context)').argParser(whole(1)).hideHelp())
    .addOption(new Option('--arena-bytes <bytes>', 'largest arena (default: 4 GiB)').argParser(whole(1)).hideHelp())
}

/** The path that a model argument stands for. */
export function modelPath(model: string | undefined): string {
  return model ?? POCKET_MODEL
}

/** Options for the engine, of one sequence. */
export function loadOptions({ context: contextTokens, ...flags }: EngineFlags, io: Io): LoadOptions {
  const { threads, ubatch, activations, kvTokens, arenaBytes, gpuLayers, gpuMemory, override, overlap, profile, trace } = flags
  return {
    pipeline: flags.pipeline,
    threads,
    contextTokens,
    ubatch,
    activations,
    kvTokens,
    arenaBytes,
    gpuExpertLayers: gpuLayers,
    gpuBytes: gpuMemory,
    overrides: override,
    sidecar: flags.sidecar,
    // without the flag the pipeline decides
    overlap: overlap === false ? false : undefined,
    profile,
    trace: trace !== undefined,
    sequences: 1,
    signal: io.signal,
  }
}

/** Writes an engine's trace. Throws `ERR_FILE_ACCESS`. */
export async function writeTrace(engine: Engine, path: string): Promise<void> {
  try {
    await pipeline(engine.trace() ?? [], createWriteStream(path))
  } catch (error) {
    throw TandemError.from(error, 'ERR_FILE_ACCESS')
  }
}

/** Gives several sequences a cache for some of full length, unless somebody has said how large it is. Throws what `planModel` throws. */
async function withCache(path: string, options: LoadOptions): Promise<LoadOptions> {
  const { sequences = 1, kvTokens } = options
  if (sequences === 1 || kvTokens !== undefined) return options
  const { contextTokens } = (await planModel(path, options)).plan.limits
  return { ...options, kvTokens: contextTokens * Math.min(FULL_LENGTH_SEQUENCES, sequences) }
}

/** Loads the model, for one sequence unless `limits` says more, does the work, and closes the engine whatever happens. */
export async function withEngine<Result>(
  model: string | undefined,
  flags: EngineFlags,
  io: Io,
  work: (engine: Engine) => Promise<Result>,
  limits: Pick<LoadOptions, 'sequences' | 'outputs'> = {},
): Promise<Result> {
  const path = modelPath(model)
  const engine = await io.during('loading', async (bar) =>
    loadModel(path, {
      ...(await withCache(path, { ...loadOptions(flags, io), ...limits })),
      onProgress: ({ phase, done, total, unit }) => bar.update(done, total, unit, phase === 'verify' ? 'verifying' : undefined),
    }),
  )
  try {
    const result = await work(engine)
    if (flags.trace !== undefined) await writeTrace(engine, flags.trace)
    return result
  } finally {
    await engine.close()
  }
}
