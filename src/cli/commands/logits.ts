/** `tandem logits`: what the model expects after each of some tokens. Needs no tokenizer. */
import type { Command } from 'commander'
import type { Engine } from '../../engine/engine.ts'
import { topLogits } from '../../sampling/top-logits.ts'
import { addEngineOptions, type EngineFlags, PREFILL_BAR_MS, withEngine } from '../engine-options.ts'
import type { Io } from '../io.ts'
import type { ProgressBar } from '../progress-bar.ts'
import { shortFloat, table } from '../text.ts'
import { tokenList, whole } from '../values.ts'

interface Flags extends EngineFlags {
  readonly tokens: readonly number[]
  readonly top: number
  readonly full?: true
  readonly json?: true
}

interface Position {
  readonly pos: number
  readonly top: readonly (readonly [id: number, logit: number])[]
  readonly logits?: Float32Array
}

export function define(command: Command, io: Io): void {
  addEngineOptions(command)
    .requiredOption('--tokens <ids>', 'token ids with commas between', tokenList)
    .option('--top <n>', 'how many of the best to show', whole(0), 10)
    .option('--full', 'all logits as well; makes --json')
    .option('--json', '{"positions":[{"pos","top":[[id,logit],...],"logits":[...]}]}')
    .addHelpText('after', '\nExample:\n  $ tandem logits model.gguf --tokens 1,2,3 --top 5\n')
    .action((model: string | undefined, flags: Flags) => run(model, flags, io))
}

async function run(model: string | undefined, flags: Flags, io: Io): Promise<void> {
  await withEngine(model, flags, io, async (engine) => {
    if (!flags.json && !flags.full) return evaluate(engine, flags, io, (row) => io.write(tableOf(row)))
    let separator = '{"positions":['
    await evaluate(engine, flags, io, (row) => {
      const text = separator + jsonOf(row)
      separator = ','
      return io.write(text)
    })
    await io.write(']}\n')
  })
}

/** Writes rows as they come; the engine waits when the reader is slower. */
async function evaluate(engine: Engine, { tokens, top, full }: Flags, io: Io, write: (row: Position) => Promise<void>): Promise<void> {
  const visit = (pos: number, logits: Float32Array): Promise<void> =>
    write({ pos, top: topLogits(logits, top), ...(full ? { logits } : {}) })
  const evaluating = (bar: ProgressBar): Promise<void> => {
    const onProgress = (done: number, total: number): void => bar.update(done, total, 'tokens')
    return engine.session().evaluate(tokens, visit, { signal: io.signal, onProgress })
  }
  await io.during('evaluating', evaluating, PREFILL_BAR_MS)
}

function jsonOf({ pos, top, logits }: Position): string {
  const best = top.map(([id, logit]) => [id, shortFloat(logit)])
  return JSON.stringify({ pos, top: best, ...(logits ? { logits: Array.from(logits, shortFloat) } : {}) })
}

const tableOf = ({ pos, top }: Position): string =>
  `position ${pos}\n${table(top.map(([id, logit]) => [id, logit.toFixed(4).padStart(12)]))}`
