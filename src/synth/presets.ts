/** Shapes of real models, and two small ones for tests and benches. Sources: config.json in the Hugging Face repositories named below. */
import { TandemError } from '../errors.ts'

/** Everything that decides the tensors of a glm4moe model. */
export interface Glm4moeShape {
  readonly hidden: number
  /** Layers that run; no nextn (MTP) layers are written. */
  readonly layers: number
  readonly denseLayers: number
  readonly heads: number
  readonly kvHeads: number
  readonly headDim: number
  readonly rotary: number
  readonly ropeBase: number
  readonly contextTokens: number
  readonly vocabulary: number
  readonly ffnDense: number
  readonly ffnExpert: number
  readonly experts: number
  readonly expertsUsed: number
  readonly sharedExperts: number
  /** Whether q and k are normed per head. */
  readonly headNorm: boolean
  readonly weightsScale: number
}

const GLM = {
  kvHeads: 8,
  heads: 96,
  headDim: 128,
  rotary: 64,
  ropeBase: 1e6,
  vocabulary: 151_552,
  expertsUsed: 8,
  sharedExperts: 1,
} as const

/** Shapes by preset name. */
export const PRESETS = {
  /** zai-org/GLM-4.5-Air: 106 G parameters. */
  'glm-4.5-air': {
    ...GLM,
    hidden: 4096,
    layers: 46,
    denseLayers: 1,
    contextTokens: 131_072,
    ffnDense: 10_944,
    ffnExpert: 1408,
    experts: 128,
    headNorm: false,
    weightsScale: 1,
  },
  /** zai-org/GLM-4.7: 355 G parameters. */
  'glm-4.7': {
    ...GLM,
    hidden: 5120,
    layers: 92,
    denseLayers: 3,
    contextTokens: 202_752,
    ffnDense: 12_288,
    ffnExpert: 1536,
    experts: 160,
    headNorm: true,
    weightsScale: 2.5,
  },
  /** 3.7 G parameters: 2 GB at four bits, for benches on small machines. */
  mid: {
    hidden: 2048,
    layers: 12,
    denseLayers: 1,
    heads: 32,
    kvHeads: 4,
    headDim: 128,
    rotary: 64,
    ropeBase: 1e6,
    contextTokens: 32_768,
    vocabulary: 32_768,
    ffnDense: 5376,
    ffnExpert: 768,
    experts: 64,
    expertsUsed: 8,
    sharedExperts: 1,
    headNorm: false,
    weightsScale: 1,
  },
  /** 5 M parameters, for tests. Rows are multiples of 256, so that every format fits. */
  micro: {
    hidden: 256,
    layers: 3,
    denseLayers: 1,
    heads: 4,
    kvHeads: 2,
    headDim: 64,
    rotary: 32,
    ropeBase: 10_000,
    contextTokens: 2048,
    vocabulary: 1024,
    ffnDense: 512,
    ffnExpert: 256,
    experts: 8,
    expertsUsed: 2,
    sharedExperts: 1,
    headNorm: true,
    weightsScale: 1,
  },
} as const satisfies Record<string, Glm4moeShape>

/** The name of a preset. */
export type PresetName = keyof typeof PRESETS

/** A preset's shape, with another number of layers when `layers` is given. Throws `ERR_ARGUMENT`. */
export function presetShape(preset: string, layers?: number): Glm4moeShape {
  const shape: Glm4moeShape | undefined = Object.hasOwn(PRESETS, preset) ? PRESETS[preset as PresetName] : undefined
  if (shape === undefined) throw new TandemError('ERR_ARGUMENT', `preset: ${preset} is not one of ${Object.keys(PRESETS).join(', ')}`)
  if (layers === undefined) return shape
  if (!Number.isInteger(layers) || layers <= shape.denseLayers || layers > 4096) {
    throw new TandemError(
      'ERR_ARGUMENT',
      `layers: ${layers} is not possible; ${preset} has ${shape.denseLayers} dense layers and needs one with experts: ` +
        `${shape.denseLayers + 1} to 4096`,
    )
  }
  return { ...shape, layers }
}
