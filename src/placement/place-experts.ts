/** Placement of routed experts on the pool, where everything else is on a GPU. */
import type { FeedForward, Layer, Model } from '../model/types.ts'
import { ArenaFiller } from './arena-filler.ts'
import { expertsLayout, inputActivations } from './arena-layout.ts'
import type { DeviceBytes, Handoff, Limits, WasmExpertsPlan } from './types.ts'

/** A layer that has routed experts. */
export type ExpertLayer = Layer & { readonly routed: FeedForward }

/** Places the experts of some layers; `handoffs` has the layers by number. Pure. Throws `ERR_ARENA_LIMIT`. */
export function placeExperts(
  model: Model,
  limits: Limits,
  layers: readonly ExpertLayer[],
): { wasm: WasmExpertsPlan; bytes: DeviceBytes; handoffs: ReadonlyMap<number, Handoff> } {
  const arena = expertsLayout(
    model,
    limits,
    layers.map(({ routed }) => routed),
  )
  const filler = new ArenaFiller(arena.end, limits)
  const placed = layers.map((layer) => ({ layer: layer.index, routed: filler.routedTogether(layer) }))
  const handoffs = placed.map(({ layer, routed }, entry): [number, Handoff] => [
    layer,
    { entry, arena: routed[0]!.gate.arena, activations: inputActivations([layers[entry]!.routed], limits.activations) },
  ])
  return {
    wasm: { holds: 'experts', arena, arenas: filler.arenaBytes, layers: placed },
    bytes: filler.deviceBytes,
    handoffs: new Map(handoffs),
  }
}
