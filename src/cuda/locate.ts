/** Where the CUDA library is. */
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import { packageFile } from '../package-root.ts'

/** Names the library file, before anything else is looked at. */
const VARIABLE = 'TANDEM_CUDA_LIBRARY'

/** An optional package that brings the built library. */
const PACKAGE = '@tandem-moe/cuda-linux-x64'

/** Where `npm run build:cuda` leaves it in a clone. */
const BUILT = 'cuda/dist/libtandem-cuda.so'

/** A library file, or why there is none and how to get one. */
export type CudaLibraryFile = { readonly path: string } | { readonly problem: string }

function packaged(): string | undefined {
  try {
    return createRequire(import.meta.url).resolve(`${PACKAGE}/libtandem-cuda.so`)
  } catch {
    return undefined
  }
}

/** The library to be used. */
export function locateCudaLibrary(): CudaLibraryFile {
  const named = process.env[VARIABLE]
  if (named) return existsSync(named) ? { path: named } : { problem: `no library: ${VARIABLE} names ${named}, which is not there` }
  const path = [packaged(), fileURLToPath(packageFile(BUILT))].find((each) => each !== undefined && existsSync(each))
  if (path !== undefined) return { path }
  if (process.platform !== 'linux') return { problem: `no library: GPUs are supported on Linux, not on ${process.platform}` }
  return {
    problem:
      `no library: ${BUILT} is not there, nor is the package ${PACKAGE} or a file that ${VARIABLE} names; ` +
      'in a clone with the CUDA toolkit, npm run build:cuda makes it',
  }
}
