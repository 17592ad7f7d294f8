/** Where this package is installed: the kernels and the bundled model lie beside the sources, in a clone and in a published package alike. */
import { existsSync, readFileSync } from 'node:fs'
import { TandemError } from './errors.ts'

/** A file of the package by its path from the package's root, for instance `wasm/dist/kernels-simd.wasm`. */
export function packageFile(path: string): URL {
  let folder = new URL('.', import.meta.url)
  while (!existsSync(new URL('package.json', folder))) {
    const parent = new URL('..', folder)
    if (parent.href === folder.href) throw new TandemError('ERR_INTERNAL', 'the package root cannot be found')
    folder = parent
  }
  return new URL(path, folder)
}

/** Version of this package. */
export const packageVersion = (): string => (JSON.parse(readFileSync(packageFile('package.json'), 'utf8')) as { version: string }).version
