/** What a plan takes from a sidecar: mapped where that can be done, else read into place. */
import { canMapFile, type FileRange } from '../native/map-file.ts'
import { STAGING_BYTES } from '../placement/arena-layout.ts'
import { placedMatrices } from '../placement/loads.ts'
import type { PlacedMatrix, WasmPlan } from '../placement/types.ts'
import type { MappedPanels } from '../wasm/executor.ts'
import type { Sidecar } from './open.ts'

/** What comes from a sidecar, and which matrices are therefore not loaded from the model's files. */
export interface SidecarPanels {
  readonly panels: MappedPanels
  readonly matrices: ReadonlySet<PlacedMatrix>
}

/** A range in pieces, so that all workers can read. */
function* pieces({ arena, offset, fileOffset, bytes }: FileRange): Generator<FileRange> {
  for (let at = 0; at < bytes; at += STAGING_BYTES) {
    yield { arena, offset: offset + at, fileOffset: fileOffset + at, bytes: Math.min(STAGING_BYTES, bytes - at) }
  }
}

/** Where a plan's matrices come from. `canMap`: whether this machine maps the file. */
export async function panelsOf(
  sidecar: Sidecar,
  plan: WasmPlan,
  canMap: Promise<boolean> | boolean = canMapFile(sidecar.handle.fd),
): Promise<SidecarPanels> {
  const isMapping = await canMap
  const matrices = new Set<PlacedMatrix>()
  const [maps, copies]: [FileRange[], FileRange[]] = [[], []]
  for (const placed of placedMatrices(plan)) {
    const found = sidecar.rangeOf(placed)
    if (!found) continue
    matrices.add(placed)
    const { isMappable, ...range } = found
    if (isMapping && isMappable) maps.push(range)
    else copies.push(...pieces(range))
  }
  return { panels: { path: sidecar.path, layout: sidecar.index.panels, descriptor: sidecar.handle.fd, maps, copies }, matrices }
}
