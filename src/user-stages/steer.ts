/** Calls a function that steers on what the model works on. */
import type { ProgramUserStage, UserStageProgram, ViewField } from '../pipeline/program.ts'
import { type AnyUserFunction, userContext, userFailure } from './functions.ts'
import type { Post, UserStageCall } from './protocol.ts'
import { readView, type StepAtHand, viewPlaces } from './view.ts'

/** A user stage that steers, with its function. */
export interface Steerer {
  readonly program: UserStageProgram
  readonly stage: ProgramUserStage
  readonly run: AnyUserFunction
  readonly post: Post
}

/** False when it has failed, which is posted: the step is to be abandoned. */
export function steer(
  { program, stage, run, post }: Steerer,
  at: StepAtHand,
  { user, layer }: UserStageCall,
  buffer: SharedArrayBuffer,
  fields: readonly ViewField[],
): boolean {
  const { step } = at
  try {
    const view = readView(buffer, viewPlaces(program, fields), 0, at, ({ writable }) => writable)
    const value = run(view, userContext(stage, program.shape, step, layer))
    if (value instanceof Promise) {
      value.catch(() => undefined)
      throw new TypeError('a function that steers must not be async')
    }
    if (value !== undefined) post({ kind: 'value', user, step, layer, value })
    return true
  } catch (cause) {
    post({ kind: 'failure', user, step, error: userFailure(stage, layer, cause).toRecord() })
    return false
  }
}
