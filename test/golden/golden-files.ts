/** Finds the models that have reference logits: the one in this folder, and whatever lies in `../shared/golden` beside the repository. */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { ActivationPrecision } from '../../src/abi/formats.ts'

/** One prompt with the logits that a float64 computation gives. */
export interface GoldenCase {
  readonly name: string
  readonly prompt: readonly number[]
  readonly positions: readonly {
    readonly pos: number
    readonly top20: readonly (readonly [number, number])[]
    readonly logits?: readonly number[]
  }[]
  readonly greedy: readonly number[]
  readonly greedy_gap: readonly number[]
  readonly router_margin_per_pos?: readonly number[]
}

/** A model file and its reference. */
export interface GoldenModel {
  readonly name: string
  readonly path: string
  readonly cases: readonly GoldenCase[]
}

const here = new URL('./data/', import.meta.url)
const shared = new URL('../../../shared/golden/', import.meta.url)

function read(name: string, model: URL, reference: URL): GoldenModel {
  const { cases } = JSON.parse(readFileSync(reference, 'utf8')) as { cases: GoldenCase[] }
  return { name, path: fileURLToPath(model), cases }
}

/** True when the larger set of reference files is there. */
export const hasSharedGolden: boolean = existsSync(new URL('models/', shared))

/** Every model with a reference. */
export function goldenModels(): GoldenModel[] {
  const own = read('micro-glm4moe-F16 (bundled)', new URL('micro-glm4moe-F16.gguf', here), new URL('micro-glm4moe-F16.json', here))
  if (!hasSharedGolden) return [own]
  const names = readdirSync(new URL('reference/', shared)).map((file) => file.replace(/\.json$/, ''))
  return [own, ...names.map((name) => read(name, new URL(`models/${name}.gguf`, shared), new URL(`reference/${name}.json`, shared)))]
}

/** Every model at every precision that makes a difference to it: the activations of float files are never quantised. */
export function goldenRuns(): (GoldenModel & { readonly activations: ActivationPrecision })[] {
  return goldenModels().flatMap((model) => {
    const precisions: ActivationPrecision[] = /-(F32|F16|BF16)/.test(model.name) ? ['q8'] : ['q8', 'q16']
    return precisions.map((activations) => ({ ...model, activations }))
  })
}

/** sum((ours - reference)^2) / sum(reference^2) over a case's full logits. */
export class NormalisedError {
  #difference = 0
  #reference = 0

  add(ours: Float32Array, reference: readonly number[]): void {
    reference.forEach((value, index) => {
      this.#difference += (ours[index]! - value) ** 2
      this.#reference += value ** 2
    })
  }

  get value(): number {
    return this.#difference / this.#reference
  }
}
