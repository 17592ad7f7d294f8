/** `tandem sweep`: how fast prefill and decode are at every depth of the cache. */
import type { Command } from 'commander'
import type { Engine } from '../../engine/engine.ts'
import { planModel } from '../../engine/load-model.ts'
import { addEngineOptions, type EngineFlags, loadOptions, modelPath, withEngine } from '../engine-options.ts'
import type { Io } from '../io.ts'
import { addProfileOption, profileText } from '../profile.ts'
import { sweep, type SweepRow, type SweepShape, sweepShape, warmUp } from '../sweep.ts'
import { summarize, sweepHeading, sweepLine } from '../sweep-table.ts'
import { whole } from '../values.ts'

interface Flags extends EngineFlags {
  readonly tg?: number
  readonly repeat: number
  readonly json?: true
}

/** A sweep that takes longer than this is worth a bar. */
const SWEEP_BAR_MS = 2000

export function define(command: Command, io: Io): void {
  addProfileOption(addEngineOptions(command))
    .option('--tg <n>', 'tokens to decode at each depth (default: a quarter of the ubatch)', whole(1))
    .option('--repeat <n>', 'sweeps; the table has medians and ranges', whole(1), 1)
    .option('--json', 'a line per row: {"pp","tg","n_kv","t_pp","speed_pp","t_tg","speed_tg"}, and "repeat" with --repeat')
    .addHelpText(
      'after',
      `
At 0, U, 2U, ... tokens in the cache, up to --context: --tg tokens are decoded and dropped again, then U = --ubatch tokens are prefilled that
stay. Random tokens, no sampling; times are seconds, speeds tokens per second.

Example:
  $ tandem sweep model.gguf -c 8192 --ubatch 512
`,
    )
    .action((model: string | undefined, flags: Flags) => run(model, flags, io))
}

async function run(model: string | undefined, flags: Flags, io: Io): Promise<void> {
  // planned first: nobody wants to wait for a model to load and then hear that the context is too small
  const { plan } = await planModel(modelPath(model), loadOptions(flags, io))
  const shape = sweepShape(plan.limits, flags.tg)
  await withEngine(model, flags, io, async (engine) => {
    await measure(engine, shape, flags, io)
    const profile = engine.profile()
    if (profile) io.talk(profileText(profile))
  })
}

/** JSON has every sweep's rows as they come; the table is written while the last sweep runs, with what the ones before have measured. */
async function measure(engine: Engine, shape: SweepShape, { repeat, json }: Flags, io: Io): Promise<void> {
  const bar = io.bar('sweeping', SWEEP_BAR_MS)
  const total = repeat * shape.rows * shape.pp
  const byDepth = Array.from({ length: shape.rows }, (): SweepRow[] => [])
  let done = 0
  try {
    await warmUp(engine, shape, io.signal)
    engine.resetProfile()
    if (!json) await io.write(sweepHeading(repeat > 1))
    for (let round = 1; round <= repeat; round++) {
      let depth = 0
      for await (const row of sweep(engine, shape, io.signal)) {
        const rows = byDepth[depth++]!
        rows.push(row)
        bar.end()
        if (json) await io.writeJson(repeat > 1 ? { ...row, repeat: round } : row)
        else if (round === repeat) await io.write(sweepLine(repeat > 1 ? summarize(rows) : row))
        done += shape.pp
        bar.update(done, total, 'tokens')
      }
    }
  } finally {
    bar.end()
  }
}
