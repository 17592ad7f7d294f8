/** Imports the functions of user stages and calls them. */
import { TandemError } from '../errors.ts'
import type { ProgramShape, ProgramUserStage } from '../pipeline/program.ts'
import type { StepView, UserStageContext } from '../pipeline/user-stage.ts'

/** A user's function, as the threads call it. */
export type AnyUserFunction = (view: StepView, context: UserStageContext) => unknown

const messageOf = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause))

/** Throws `ERR_USER_STAGE`. */
export async function importUserFunction({ name, module, export: exported }: ProgramUserStage): Promise<AnyUserFunction> {
  let loaded: Readonly<Record<string, unknown>>
  try {
    loaded = (await import(module)) as typeof loaded
  } catch (cause) {
    throw new TandemError('ERR_USER_STAGE', `user stage '${name}': ${module} cannot be imported: ${messageOf(cause)}`, { cause })
  }
  const found = loaded[exported]
  if (typeof found === 'function') return found as AnyUserFunction
  throw new TandemError('ERR_USER_STAGE', `user stage '${name}': ${module} has no function that is exported as '${exported}'`)
}

/** What a function is told beside its view. */
export function userContext(
  { name, data }: ProgramUserStage,
  shape: ProgramShape,
  step: number,
  layer: number | undefined,
): UserStageContext {
  const { hidden, vocabulary, experts, expertsUsed } = shape
  return { name, layer, step, data, shape: { hidden, vocabulary, experts, expertsUsed } }
}

/** The error that a user function's own becomes. */
export function userFailure({ name }: ProgramUserStage, layer: number | undefined, cause: unknown): TandemError {
  const where = layer === undefined ? '' : ` at layer ${layer}`
  return new TandemError('ERR_USER_STAGE', `user stage '${name}' failed${where}: ${messageOf(cause)}`, { cause })
}
