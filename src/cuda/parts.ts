/**
 * A step in parts: where a user's function looks at what the GPU works on, its rows are copied to host memory. Pure.
 *
 *     observers   what they see is copied to places of its own, as long as there are any, and they are called when the part has ended
 *     steerers    the part ends where they stand; what they have changed is copied back at the beginning of the next
 *
 * Without user stages a step is one part.
 */
import { CUDA_ROWS } from '../abi/cuda.ts'
import type { CudaProgram, CudaStageCall, CudaUserCall, UserStageProgram, ViewField } from '../pipeline/program.ts'
import type { ArenaLayout, DeviceLayer } from '../placement/types.ts'

/** Names of what can be copied from the device. */
type RowsName = keyof typeof CUDA_ROWS

/** A copy between the device and the host, or, with `slot`, between the host and a hand-off's arena. */
export interface RowCopy {
  readonly rows: RowsName
  /** In the memory of the results. */
  readonly offset: number
  readonly bytes: number
  readonly slot?: { readonly arena: number; readonly offset: number }
}

/** A call of a user stage, and where what it sees lies. */
export interface PartUserCall extends CudaUserCall {
  readonly fields: readonly ViewField[]
}

/** What is queued for one call of the program: a stage, or copies for a user's function. */
export type PartCall = CudaStageCall | { readonly stage: 'user'; readonly layer: number; readonly reads: readonly RowCopy[] }

/** A part of a step. */
export interface Part {
  /** Index of its first call in the program. */
  readonly first: number
  readonly calls: readonly PartCall[]
  /** Copied to the device before everything else. */
  readonly writes: readonly RowCopy[]
  /** Functions that are called when the part has ended, in order. */
  readonly users: readonly PartUserCall[]
  /** Copied from hand-offs' arenas before, and to them after that. */
  readonly slotReads: readonly RowCopy[]
  readonly slotWrites: readonly RowCopy[]
}

type Draft = { -readonly [Field in keyof Part]: Part[Field] extends readonly (infer Each)[] ? Each[] : Part[Field] }

const draft = (first: number, writes: RowCopy[] = []): Draft => ({ first, calls: [], writes, users: [], slotReads: [], slotWrites: [] })

const isRows = (name: string): name is RowsName => name in CUDA_ROWS

/** Calls of user stages that stand at one place. */
interface Place {
  readonly users: readonly CudaUserCall[]
  readonly isHandedOver: boolean
}

/** Puts the calls of one program and one number of tokens into parts. */
class Parts {
  readonly list: Draft[] = [draft(0)]
  readonly #user: UserStageProgram
  readonly #arena: ArenaLayout | undefined
  readonly #layers: readonly DeviceLayer[]
  readonly #tokens: number
  /** Rows of each kind that the part at hand has places for taken. */
  #taken = new Map<RowsName, number>()

  constructor(user: UserStageProgram, arena: ArenaLayout | undefined, layers: readonly DeviceLayer[], tokens: number) {
    this.#user = user
    this.#arena = arena
    this.#layers = layers
    this.#tokens = tokens
  }

  get #part(): Draft {
    return this.list.at(-1)!
  }

  stage(call: CudaStageCall): void {
    this.#part.calls.push(call)
  }

  /** All calls of user stages that stand together. */
  place(users: readonly CudaUserCall[], next: number): void {
    const isHandedOver = this.#layers[users[0]!.layer]?.handoff !== undefined
    const copies = this.#copies({ users, isHandedOver })
    const part = this.#part
    for (const [index, { stage, layer }] of users.entries()) {
      const reads = index === 0 ? [...copies.values()].filter(({ rows, slot }) => !slot || rows !== 'routed') : []
      part.calls.push({ stage, layer, reads })
    }
    part.slotReads.push(...[...copies.values()].filter(({ rows, slot }) => slot && rows === 'routed'))
    part.users.push(...users.map((call) => ({ ...call, fields: this.#fields(call, copies) })))
    const steered = this.#steered(users, copies)
    part.slotWrites.push(...steered.filter(({ slot }) => slot))
    // what the pool hands back is overwritten by the next layer, and what steers must be waited for
    const isEnd = part.slotReads.length > 0 || users.some(({ user }) => this.#user.userStages[user]!.steer)
    if (isEnd || this.#isFull)
      this.#end(
        next,
        steered.filter(({ slot }) => !slot),
      )
  }

  #end(next: number, writes: RowCopy[]): void {
    this.list.push(draft(next, writes))
    this.#taken = new Map()
  }

  /** Whether another place might not find room. */
  get #isFull(): boolean {
    return [...this.#taken.values()].some((taken) => taken + this.#tokens > this.#user.ubatch)
  }

  /** What the users at a place see together, and where it is copied to. */
  #copies({ users, isHandedOver }: Place): ReadonlyMap<RowsName, RowCopy> {
    const copies = new Map<RowsName, RowCopy>()
    for (const { name, columns, offset } of users.flatMap(({ user }) => this.#user.userStages[user]!.fields)) {
      if (!isRows(name) || copies.has(name)) continue
      const taken = this.#taken.get(name) ?? 0
      this.#taken.set(name, taken + this.#tokens)
      const at = this.#slotOffset(name)
      const slot = isHandedOver && at !== undefined ? { arena: this.#layers[users[0]!.layer]!.handoff!.arena, offset: at } : undefined
      const rowBytes = columns * 4
      copies.set(name, { rows: name, offset: offset + taken * rowBytes, bytes: this.#tokens * rowBytes, ...(slot ? { slot } : {}) })
    }
    return copies
  }

  /** Where the hand-off's arena has these rows; undefined for what stays on the device. */
  #slotOffset(name: RowsName): number | undefined {
    return name === 'x' || name === 'shared' ? undefined : this.#arena?.[name]
  }

  #fields({ user }: CudaUserCall, copies: ReadonlyMap<RowsName, RowCopy>): ViewField[] {
    return this.#user.userStages[user]!.fields.map((field) =>
      isRows(field.name) ? { ...field, offset: copies.get(field.name)!.offset } : field,
    )
  }

  /** What the users at a place may have changed. */
  #steered(users: readonly CudaUserCall[], copies: ReadonlyMap<RowsName, RowCopy>): RowCopy[] {
    const fields = users.flatMap(({ user }) => {
      const { steer, fields: own } = this.#user.userStages[user]!
      return steer ? own.filter(({ writable }) => writable).map(({ name }) => name) : []
    })
    return [...copies.values()].filter(({ rows }) => fields.includes(rows))
  }
}

/** The parts of a step with so many tokens. `arena`: the layout of the hand-offs' arenas. */
export function partsOf(
  { calls, user }: Pick<CudaProgram, 'calls' | 'user'>,
  layers: readonly DeviceLayer[],
  arena: ArenaLayout | undefined,
  tokens: number,
): readonly Part[] {
  if (!user) return [{ ...draft(0), calls: calls as readonly CudaStageCall[] }]
  const parts = new Parts(user, arena, layers, tokens)
  for (let index = 0; index < calls.length;) {
    const call = calls[index]!
    if (call.stage !== 'user') {
      parts.stage(call)
      index++
      continue
    }
    const users: CudaUserCall[] = []
    for (let each = calls[index]; each?.stage === 'user'; each = calls[++index]) users.push(each)
    parts.place(users, index)
  }
  return parts.list.filter((part) => part.calls.length > 0)
}

/** Layers whose hand-off may be changed between the router and the pool. */
export function heldLayers({ calls }: Pick<CudaProgram, 'calls'>): ReadonlySet<number> {
  return new Set(calls.flatMap(({ stage, layer }, index) => (stage === 'publish' && calls[index - 1]?.stage === 'user' ? [layer] : [])))
}
