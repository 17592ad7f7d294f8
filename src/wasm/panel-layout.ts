/** Which layout of panels the kernels have, as a name that changes whenever `repack` writes anything else: for files that hold panels. */
import { createHash } from 'node:crypto'
import { TandemError } from '../errors.ts'
import { type Kernels, makeBench } from './kernels.ts'
import { SELF_TEST } from './self-test.ts'

const REPACKING = SELF_TEST.filter(({ name }) => name.startsWith('repack '))

/** SHA-256 of what made-up matrices become in every format; the same for all builds of the same sources. */
export function panelLayout({ module }: Kernels): string {
  const bench = makeBench(module)
  const hash = createHash('sha256')
  for (const test of REPACKING) hash.update(test.name).update(bench.run(test))
  return hash.digest('hex')
}

/** Throws `ERR_SIDECAR_STALE` for a file whose panels are not what these kernels make. */
export function checkPanelLayout({ path, layout }: { readonly path: string; readonly layout: string }, kernels: Kernels): void {
  if (layout === panelLayout(kernels)) return
  throw new TandemError(
    'ERR_SIDECAR_STALE',
    `${path}: the file was written for kernels that lay weights out in another way; write it again with tandem repack --force`,
  )
}
