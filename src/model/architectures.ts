/** The architectures that Tandem runs. To add one, write its file and list it here. */
import { TandemError } from '../errors.ts'
import type { ModelFile } from '../gguf/types.ts'
import type { Architecture } from './architecture.ts'
import { glm4moe } from './glm4moe.ts'

/** By `general.architecture`. */
export const ARCHITECTURES: ReadonlyMap<string, Architecture> = new Map([glm4moe].map((architecture) => [architecture.name, architecture]))

/** The architecture of a file. Throws `ERR_ARCH_UNKNOWN`, and `ERR_HPARAMS_INVALID` when the file does not say. */
export function architectureOf(file: ModelFile): Architecture {
  const name = file.metadata.get('general.architecture')
  if (typeof name !== 'string') {
    throw new TandemError('ERR_HPARAMS_INVALID', `${file.paths[0]}: general.architecture is missing or no text; the file is not a model`)
  }
  const architecture = ARCHITECTURES.get(name)
  if (architecture === undefined) {
    throw new TandemError(
      'ERR_ARCH_UNKNOWN',
      `${file.paths[0]}: the architecture ${JSON.stringify(name.slice(0, 80))} is not known; known: ${[...ARCHITECTURES.keys()].join(', ')}`,
    )
  }
  return architecture
}
