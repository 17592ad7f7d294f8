/** Writes a GGUF model with random weights in the shape of a real one: for measuring speed and memory without a download. */
import { statfs } from 'node:fs/promises'
import { dirname } from 'node:path'
import { FORMATS } from '../abi/formats.ts'
import type { FormatName } from '../abi/formats.ts'
import { TandemError } from '../errors.ts'
import { access } from '../gguf/reader.ts'
import { tensorBytes, writeModelFile } from '../gguf/write.ts'
import { BLOCK_MAKERS } from './blocks.ts'
import { fallbacksOf, glm4moeMetadata, glm4moeTensors } from './glm4moe.ts'
import type { Fallback, SynthTensor } from './glm4moe.ts'
import { presetShape } from './presets.ts'
import type { PresetName } from './presets.ts'
import { fillRandom } from './random.ts'

/** Elements generated at a time: a multiple of every block, each piece with a seed of its own. Part of the format of a seed: never change it. */
const PIECE_ELEMENTS = 1024 * 1024

/** What to write. */
export interface SynthesizeOptions {
  /** Default `glm4moe`. */
  readonly architecture?: 'glm4moe'
  readonly preset: PresetName
  /** Layers, dense ones included; default: the preset's. */
  readonly layers?: number
  /** Format of the routed experts; default `Q4_0`. */
  readonly expertFormat?: FormatName
  /** Format of the other matrices; default `Q8_0`. Norms, biases and the router are F32. */
  readonly format?: FormatName
  /** Any whole number; default 0. The same options give the same bytes on every machine. */
  readonly seed?: number
  /** Path of the file; replaced when it exists. */
  readonly output: string
  readonly signal?: AbortSignal
  readonly onProgress?: (progress: {
    readonly phase: 'write'
    readonly done: number
    readonly total: number
    readonly unit: 'bytes'
  }) => void
}

/** What was written. */
export interface SynthesizeResult {
  readonly bytes: number
  readonly tensors: number
  readonly seconds: number
  /** Formats that did not fit and what was used instead; empty in most cases. */
  readonly fallbacks: readonly Fallback[]
}

/**
 * Writes the file. It appears under its name only when it is complete.
 * Throws `ERR_ARGUMENT`, `ERR_FILE_ACCESS` (also when the disk has too little room), `ERR_ABORTED`.
 */
export async function synthesize(options: SynthesizeOptions): Promise<SynthesizeResult> {
  const started = performance.now()
  const { architecture = 'glm4moe', expertFormat = 'Q4_0', format = 'Q8_0', seed = 0, preset, output, signal, onProgress } = options
  if (architecture !== 'glm4moe') throw new TandemError('ERR_ARGUMENT', `architecture: ${String(architecture)} is not one of glm4moe`)
  checkFormat('format', format)
  checkFormat('expertFormat', expertFormat)
  if (!Number.isSafeInteger(seed)) throw new TandemError('ERR_ARGUMENT', `seed: ${seed} is not a whole number`)
  const shape = presetShape(preset, options.layers)
  const tensors = glm4moeTensors(shape, format, expertFormat)
  await checkRoom(
    output,
    tensors.reduce((sum, tensor) => sum + tensorBytes(tensor), 0),
  )
  const written = await writeModelFile(output, {
    metadata: glm4moeMetadata(shape, `synth-${preset}-${expertFormat}-seed${seed}`, expertFormat),
    tensors: tensors.map((tensor) => ({ ...tensor, data: () => tensorData(tensor, seed) })),
    ...(signal === undefined ? {} : { signal }),
    ...(onProgress === undefined ? {} : { onProgress: (progress) => onProgress({ phase: 'write', ...progress, unit: 'bytes' }) }),
  })
  return { ...written, seconds: (performance.now() - started) / 1000, fallbacks: fallbacksOf(tensors, format, expertFormat) }
}

/** The data of a tensor, piece by piece. The chunks share one buffer: use each before asking for the next. */
export function* tensorData(tensor: SynthTensor, seed: number): Generator<Uint8Array> {
  const format = FORMATS[tensor.format]
  const elements = tensor.shape.reduce((product, length) => product * length, 1)
  const makeBlocks = BLOCK_MAKERS[tensor.format](tensor.deviation)
  const pieceBytes = (Math.min(elements, PIECE_ELEMENTS) / format.blockElements) * format.blockBytes
  const words = new Uint32Array(Math.ceil(pieceBytes / 4))
  for (let first = 0; first < elements; first += PIECE_ELEMENTS) {
    const bytes = (Math.min(elements - first, PIECE_ELEMENTS) / format.blockElements) * format.blockBytes
    const piece = new Uint8Array(words.buffer, 0, bytes)
    fillRandom(words.subarray(0, Math.ceil(bytes / 4)), `${seed}/${tensor.name}/${first / PIECE_ELEMENTS}`)
    makeBlocks(piece)
    if (tensor.mean !== 0) shift(new Float32Array(words.buffer, 0, bytes / 4), tensor.mean)
    yield piece
  }
}

function shift(values: Float32Array, by: number): void {
  for (let index = 0; index < values.length; index += 1) values[index] = values[index]! + by
}

function checkFormat(option: string, format: string): void {
  if (!Object.hasOwn(FORMATS, format)) {
    throw new TandemError('ERR_ARGUMENT', `${option}: ${format} is not one of ${Object.keys(FORMATS).join(', ')}`)
  }
}

async function checkRoom(output: string, bytes: number): Promise<void> {
  const directory = dirname(output)
  const { bavail, bsize } = await access(directory, () => statfs(directory))
  if (bytes > bavail * bsize) {
    throw new TandemError(
      'ERR_FILE_ACCESS',
      `${output}: the file takes ${(bytes / 1e9).toFixed(1)} GB and the disk has ${((bavail * bsize) / 1e9).toFixed(1)} GB free; ` +
        'use fewer layers, a smaller format or another disk',
    )
  }
}
