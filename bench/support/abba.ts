/**
 * Four engines of two kinds in one process, loaded A B B A, because where an engine's memory lies makes more of a difference than what is measured,
 * and asked a few tokens each in turn. Needs memory for the model four times.
 */
import type { Engine, Session } from '../../src/index.ts'
import { createRandom } from '../../src/sampling/random.ts'

/** Four engines, the first and the last of kind A, and a session of each. */
export interface Abba {
  readonly engines: readonly Engine[]
  readonly sessions: readonly Session[]
  /** So many random tokens of the model's vocabulary. */
  readonly tokens: (count: number) => number[]
  readonly close: () => Promise<void>
}

/** Whether the engine at an index is of kind A. */
export const isA = (index: number): boolean => index % 3 === 0

/** Loads the engines. `context`: random tokens that every session holds already. */
export async function loadAbba(load: (isKindA: boolean) => Promise<Engine>, context: number): Promise<Abba> {
  const random = createRandom(1)
  const engines: Engine[] = []
  for (let index = 0; index < 4; index++) engines.push(await load(isA(index)))
  const { vocabulary } = engines[0]!.model.hyper
  const tokens = (count: number): number[] => Array.from({ length: count }, () => Math.floor(random() * vocabulary))
  const sessions = engines.map((engine) => engine.session())
  for (const session of sessions) await session.sync(tokens(context))
  const close = async (): Promise<void> => {
    for (const engine of engines) await engine.close()
  }
  return { engines, sessions, tokens, close }
}
