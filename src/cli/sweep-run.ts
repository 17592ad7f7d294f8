/** Runs the sweeps of several configurations in turn, so that a machine that gets slower or faster meanwhile does it to all of them. */
import type { Engine } from '../engine/engine.ts'
import type { Machine, Plan } from '../placement/types.ts'
import { withEngine } from './engine-options.ts'
import type { Io } from './io.ts'
import { profileText } from './profile.ts'
import { sweep, type SweepPart, type SweepRow, type SweepShape, warmUp } from './sweep.ts'
import type { Configuration } from './sweep-configurations.ts'

/** A configuration that has been planned. */
export interface PlannedSweep {
  readonly configuration: Configuration
  readonly shape: SweepShape
  readonly plan: Plan
  readonly machine: Machine
}

/** A row as it is measured. */
export interface MeasuredRow {
  readonly planned: PlannedSweep
  readonly row: SweepRow
  /** 1 for the first sweep of a configuration. */
  readonly round: number
}

/** A sweep that takes longer than this is worth a bar. */
const BAR_MS = 2000

/** Where the sweeps are, on the terminal. */
class Where {
  readonly #bar
  readonly #totalRows: number
  #rows = 0

  constructor(io: Io, totalRows: number) {
    this.#bar = io.bar('sweeping', BAR_MS)
    this.#totalRows = totalRows
  }

  at(name: string, part: SweepPart, depth: number): void {
    const where = `${name}: ${part}${part === 'warming up' ? '' : ` at ${depth}`}`
    this.#bar.show((label) => `${label} ${where}; ${this.#rows} of ${this.#totalRows} rows done`)
  }

  rowDone(): void {
    this.#rows++
  }

  end(): void {
    this.#bar.end()
  }
}

/**
 * Round by round, each configuration once in every round: A B A B. A lone configuration is loaded once; of several, one is loaded at a time, and
 * warmed up each time.
 */
export async function runSweeps(
  all: readonly PlannedSweep[],
  repeat: number,
  io: Io,
  onRow: (measured: MeasuredRow) => Promise<void>,
): Promise<void> {
  const where = new Where(io, repeat * all.reduce((sum, { shape }) => sum + shape.rows, 0))
  const rounds = Array.from({ length: repeat }, (_, index) => index + 1)
  /** One load. */
  const load = (planned: PlannedSweep, these: readonly number[]): Promise<void> => {
    const { path, flags, label } = planned.configuration
    return withEngine(path, flags, io, async (engine) => {
      await measure(engine, planned, these)
      const profile = engine.profile()
      if (!profile) return
      if (all.length > 1) io.talk(`${label}${repeat > 1 ? `, sweep ${these[0]} of ${repeat}` : ''}:`)
      io.talk(profileText(profile))
    })
  }
  const measure = async (engine: Engine, planned: PlannedSweep, these: readonly number[]): Promise<void> => {
    const { shape, configuration } = planned
    const nameOf = (round: number): string => (repeat > 1 ? `${configuration.label} (${round} of ${repeat})` : configuration.label)
    where.at(nameOf(these[0]!), 'warming up', 0)
    await warmUp(engine, shape, io.signal)
    engine.resetProfile()
    for (const round of these) {
      for await (const row of sweep(engine, shape, io.signal, (part, depth) => where.at(nameOf(round), part, depth))) {
        where.rowDone()
        await onRow({ planned, row, round })
      }
    }
  }
  try {
    if (all.length === 1) await load(all[0]!, rounds)
    else for (const round of rounds) for (const planned of all) await load(planned, [round])
  } finally {
    where.end()
  }
}
