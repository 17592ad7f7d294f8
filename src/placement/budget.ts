/** How many layers' routed experts a GPU has room for. Pure. */
import { TandemError } from '../errors.ts'
import { gib, gpuAdvice, partsText } from './memory.ts'
import type { ExpertPlaces } from './expert-places.ts'
import type { ExpertLayer } from './place-experts.ts'
import type { DeviceBytes } from './types.ts'

/**
 * Layers whose experts stay on the pool when the GPU may take `gpuBytes`: from the last movable layer on, every one that still fits goes to the GPU.
 * `bytesWith` says what the GPU's part takes when the pool has the experts of some layers. Throws `ERR_MEMORY` when what must be on the GPU does not fit.
 */
export function fillBudget(
  { onPool, onDevice, movable }: ExpertPlaces,
  gpuBytes: number,
  bytesWith: (onPool: readonly ExpertLayer[]) => DeviceBytes,
): readonly ExpertLayer[] {
  const least = bytesWith(onPool)
  if (least.bytes > gpuBytes) {
    throw new TandemError(
      'ERR_MEMORY',
      `the GPU's part of the model needs ${gib(least.bytes)} (${partsText(least)}), ${gib(least.bytes - gpuBytes)} more than the ` +
        `${gib(gpuBytes)} it may take: raise that, or ${gpuAdvice(onDevice.length > 0)}`,
    )
  }
  let staying = onPool
  for (const layer of movable.toReversed()) {
    const without = staying.filter((each) => each !== layer)
    if (bytesWith(without).bytes <= gpuBytes) staying = without
  }
  return staying
}
