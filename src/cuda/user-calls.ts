/** Calls the user stages at the end of a part of a step, and copies what they see and change between the results' memory and hand-offs' arenas. */
import type { UserStageProgram } from '../pipeline/program.ts'
import type { UserCaller } from '../user-stages/callers.ts'
import type { StepAtHand } from '../user-stages/view.ts'
import type { Part, RowCopy } from './parts.ts'

type Bytes = Uint8Array<SharedArrayBuffer>

/** What calls are made with. */
export interface UserCallsOptions {
  readonly program: UserStageProgram
  readonly callers: readonly UserCaller[]
  /** The memory of the results, and the pool's arenas. */
  readonly results: Bytes
  readonly arenas: readonly Bytes[]
}

/** See the file's header. */
export class UserCalls {
  readonly #options: UserCallsOptions

  constructor(options: UserCallsOptions) {
    this.#options = options
  }

  /** A step begins. `record`: its bytes, or more, in the ring's slot. */
  begin(record: Bytes): void {
    const { program, results } = this.#options
    // block tables are nothing that a user's function sees
    results.set(record.subarray(0, program.step.blockTables), program.arena.step)
  }

  /** False when the step is to be abandoned. Throws `ERR_TIMEOUT`, `ERR_POISONED`. */
  run(part: Part, at: StepAtHand): boolean {
    const { callers, results } = this.#options
    for (const copy of part.slotReads) results.set(this.#slot(copy), copy.offset)
    for (const { user, layer, fields } of part.users) {
      if (!callers[user]!(at, { user, layer: layer < 0 ? undefined : layer }, results, fields)) return false
    }
    for (const copy of part.slotWrites) this.#slot(copy).set(results.subarray(copy.offset, copy.offset + copy.bytes))
    return true
  }

  #slot({ slot, bytes }: RowCopy): Bytes {
    return this.#options.arenas[slot!.arena]!.subarray(slot!.offset, slot!.offset + bytes)
  }
}
