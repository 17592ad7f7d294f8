/** Where activation records lie: those of the precision that an engine computes with. */
import type { ActivationPrecision, RecordFormat } from '../abi/formats.ts'
import type { RecordOffsets } from './types.ts'

/** Record formats of each precision, and the values of their blocks. */
const RECORD_FORMATS = {
  q8: [
    ['q8x32', 32],
    ['q8x256', 256],
  ],
  q16: [
    ['q16x32', 32],
    ['q16x256', 256],
  ],
} as const satisfies Record<ActivationPrecision, readonly (readonly [RecordFormat, number])[]>

/** Offsets of the records of each format; `reserve` gives that of one whose blocks have so many values, 0 for none. */
export function recordOffsets(precision: ActivationPrecision, reserve: (format: RecordFormat, block: number) => number): RecordOffsets {
  const offsets = { q8x32: 0, q8x256: 0, q16x32: 0, q16x256: 0 }
  for (const [format, block] of RECORD_FORMATS[precision]) offsets[format] = reserve(format, block)
  return offsets
}
