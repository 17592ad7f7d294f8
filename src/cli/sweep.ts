/**
 * The loop of the field's sweep benchmark (llama-sweep-bench of ik_llama.cpp, examples/sweep-bench): speed at every depth of the cache, not
 * averaged over the context.
 *
 *     cache   0 -------- U -------- 2U ------- 3U ...     at each: decode `tg` tokens and drop them, then prefill U that stay
 */
import type { Engine, Session } from '../engine/engine.ts'
import { TandemError } from '../errors.ts'
import type { Limits } from '../placement/types.ts'
import { createRandom } from '../sampling/random.ts'

/** One depth. Keys are those of the field's tool: tokens, seconds, tokens per second. */
export interface SweepRow {
  /** Tokens prefilled behind the cache, and tokens decoded there. */
  readonly pp: number
  readonly tg: number
  /** Tokens in the cache before either. */
  readonly n_kv: number
  readonly t_pp: number
  readonly speed_pp: number
  readonly t_tg: number
  readonly speed_tg: number
}

/** What a sweep is at: a part of a row. */
export type SweepPart = 'warming up' | 'decode' | 'prefill'

/** Told when a part begins, with the tokens in the cache. */
export type OnPart = (part: SweepPart, depth: number) => void

/** How deep a sweep goes. */
export interface SweepShape {
  readonly pp: number
  readonly tg: number
  readonly rows: number
}

/** The same tokens in every run: which experts they choose is part of the time. */
const SEED = 1

/** The warm-up decodes for so long, in which V8 optimises what a step of a small model runs; of a large one it is so many steps. */
const WARM_UP_MS = 300
const WARM_UP_DECODES = 2

/** A sweep of engine limits; a last depth with no room for a whole row is left out. Throws `ERR_ARGUMENT` when there is room for none. */
export function sweepShape({ contextTokens, ubatch }: Pick<Limits, 'contextTokens' | 'ubatch'>, tokens: number | undefined): SweepShape {
  const tg = tokens ?? Math.max(1, Math.floor(ubatch / 4))
  const refuse = (what: string): never => {
    throw new TandemError('ERR_ARGUMENT', `--context must be at least the ${what}, not ${contextTokens}`)
  }
  if (ubatch > contextTokens) refuse(`--ubatch of ${ubatch}`)
  if (tg > contextTokens) refuse(`--tg of ${tg}`)
  return { pp: ubatch, tg, rows: Math.floor((contextTokens - Math.max(ubatch, tg)) / ubatch) + 1 }
}

/** Runs both kinds of step, so that the first row does not pay for what only the first does. */
export async function warmUp(engine: Engine, { pp, tg }: SweepShape, signal: AbortSignal): Promise<void> {
  const session = engine.session()
  const random = randomTokens(engine)
  try {
    const start = performance.now()
    for (let steps = 0; steps < WARM_UP_DECODES || performance.now() - start < WARM_UP_MS; steps++) {
      if (session.tokens.length >= tg) session.truncate(0)
      await decode(session, random(1), signal)
    }
    session.truncate(0)
    await prefill(session, random(pp), signal)
  } finally {
    await session.close()
  }
}

/** One sweep, row by row as they are measured. Errors as of `Session.sync`. */
export async function* sweep(
  engine: Engine,
  { pp, tg, rows }: SweepShape,
  signal: AbortSignal,
  onPart: OnPart,
): AsyncGenerator<SweepRow, void, undefined> {
  const session = engine.session()
  const random = randomTokens(engine)
  try {
    for (let row = 0; row < rows; row++) {
      const depth = row * pp
      const decoded = random(tg)
      onPart('decode', depth)
      const decodeSeconds = await secondsOf(() => decode(session, decoded, signal))
      session.truncate(depth)
      const prefilled = random(pp)
      onPart('prefill', depth)
      const prefillSeconds = await secondsOf(() => prefill(session, prefilled, signal))
      yield {
        pp,
        tg,
        n_kv: depth,
        t_pp: round(prefillSeconds, 6),
        speed_pp: round(pp / prefillSeconds, 3),
        t_tg: round(decodeSeconds, 6),
        speed_tg: round(tg / decodeSeconds, 3),
      }
    }
  } finally {
    await session.close()
  }
}

const round = (value: number, digits: number): number => Number(value.toFixed(digits))

function randomTokens(engine: Engine): (count: number) => number[] {
  const random = createRandom(SEED)
  const { vocabulary } = engine.model.hyper
  return (count) => Array.from({ length: count }, () => Math.floor(random() * vocabulary))
}

/** Appends tokens; logits are computed for the last alone. Here and in `decode` as much of them is wanted as a greedy answer needs. */
async function prefill(session: Session, tokens: readonly number[], signal: AbortSignal): Promise<void> {
  await session.syncBest([...session.tokens, ...tokens], 1, { signal })
}

async function decode(session: Session, tokens: readonly number[], signal: AbortSignal): Promise<void> {
  for (const token of tokens) await session.decodeBest(token, 1, { signal })
}

async function secondsOf(work: () => Promise<void>): Promise<number> {
  const start = performance.now()
  await work()
  return (performance.now() - start) / 1000
}
