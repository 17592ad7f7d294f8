/** Views of user stages: where their arrays lie, where the model works or in a record of an observer's queue, and how they become typed arrays. */
import { RUN_WORDS } from '../abi/step.ts'
import type { ProgramUserStage, UserStageProgram, ViewField } from '../pipeline/program.ts'
import type { StepView, TokenRun } from '../pipeline/user-stage.ts'
import { Layout } from '../ring/arena.ts'

/** How much there is of everything. */
export interface ViewCounts {
  readonly tokens: number
  readonly runs: number
  readonly outputs: number
}

/** The step at hand. */
export interface StepAtHand extends ViewCounts {
  /** Its number. */
  readonly step: number
}

/** Byte offsets of what a view is made of. */
export interface ViewPlaces {
  readonly tokenIds: number
  readonly positions: number
  readonly runs: number
  readonly fields: readonly ViewField[]
}

/** Words before a record's arrays: step, layer (-1 for none), tokens, runs, outputs. */
export const RECORD_HEADER = { step: 0, layer: 1, tokens: 2, runs: 3, outputs: 4 } as const
const RECORD_HEADER_BYTES = 64

/** Where everything lies that the model works on. */
export function viewPlaces({ arena, step }: UserStageProgram, fields: readonly ViewField[]): ViewPlaces {
  return { tokenIds: arena.step + step.tokenIds, positions: arena.step + step.positions, runs: arena.step + step.runs, fields }
}

/** Where everything lies in a record, and the bytes of the largest. */
export function recordPlaces(
  { step, ubatch, outputs }: UserStageProgram,
  { fields }: ProgramUserStage,
): { places: ViewPlaces; bytes: number } {
  const layout = new Layout(RECORD_HEADER_BYTES)
  const places = {
    tokenIds: layout.reserve(ubatch * 4),
    positions: layout.reserve(ubatch * 4),
    runs: layout.reserve(step.blockTables - step.runs),
    fields: fields.map((field) => ({ ...field, offset: layout.reserve((field.rows === 'tokens' ? ubatch : outputs) * field.columns * 4) })),
  }
  return { places, bytes: Math.ceil(layout.bytes / 64) * 64 }
}

/** Elements of each of a view's arrays, the fields last. */
function lengths({ fields }: ViewPlaces, { tokens, runs, outputs }: ViewCounts): number[] {
  return [tokens, tokens, runs * RUN_WORDS, ...fields.map((field) => (field.rows === 'tokens' ? tokens : outputs) * field.columns)]
}

const offsets = ({ tokenIds, positions, runs, fields }: ViewPlaces): number[] => [
  tokenIds,
  positions,
  runs,
  ...fields.map(({ offset }) => offset),
]

/** Copies everything that is there from `from` to `to`, which begins at byte `base` of its buffer. */
export function copyView(
  from: Uint8Array<SharedArrayBuffer>,
  fromPlaces: ViewPlaces,
  to: Uint8Array<SharedArrayBuffer>,
  toPlaces: ViewPlaces,
  base: number,
  counts: ViewCounts,
): void {
  const sources = offsets(fromPlaces)
  const targets = offsets(toPlaces)
  for (const [index, length] of lengths(fromPlaces, counts).entries()) {
    const source = sources[index]!
    to.set(from.subarray(source, source + length * 4), base + targets[index]!)
  }
}

/** The view of what lies at byte `base`. Copies, but for the fields that `isShared` says are to be written to. */
export function readView(
  buffer: SharedArrayBuffer,
  places: ViewPlaces,
  base: number,
  counts: ViewCounts,
  isShared: (field: ViewField) => boolean,
): StepView {
  const ints = (offset: number, length: number): Int32Array => new Int32Array(buffer, base + offset, length)
  const words = ints(places.runs, counts.runs * RUN_WORDS)
  const runs: TokenRun[] = Array.from({ length: counts.runs }, (_, run) => ({
    first: words[run * RUN_WORDS]!,
    count: words[run * RUN_WORDS + 1]!,
  }))
  const arrays = places.fields.map((field) => {
    const length = (field.rows === 'tokens' ? counts.tokens : counts.outputs) * field.columns
    const array = field.type === 'i32' ? ints(field.offset, length) : new Float32Array(buffer, base + field.offset, length)
    return [field.name, isShared(field) ? array : array.slice()] as const
  })
  return {
    tokens: ints(places.tokenIds, counts.tokens).slice(),
    positions: ints(places.positions, counts.tokens).slice(),
    runs,
    ...Object.fromEntries(arrays),
  }
}
