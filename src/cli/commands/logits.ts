/** `tandem logits`: what the model expects after each of some tokens. Needs no tokenizer. */
import type { Command } from 'commander'
import type { Engine } from '../../engine/engine.ts'
import { topLogits } from '../../sampling/top-logits.ts'
import { addEngineOptions, type EngineFlags, PREFILL_BAR_MS, withEngine } from '../engine-options.ts'
import type { Io } from '../io.ts'
import { Queue } from '../queue.ts'
import { table } from '../text.ts'
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
    const writing = flags.json || flags.full ? writeJson : writeTable
    // rows are written while later ones are computed; a failed write is seen by both
    const rows = new Queue<Position>()
    await Promise.all([evaluate(engine, flags, io, rows), writing(rows, io)])
  })
}

async function evaluate(engine: Engine, { tokens, top, full }: Flags, io: Io, rows: Queue<Position>): Promise<void> {
  const bar = io.bar('evaluating', PREFILL_BAR_MS)
  const visit = (pos: number, logits: Float32Array): void =>
    rows.push({ pos, top: topLogits(logits, top), ...(full ? { logits: logits.slice() } : {}) })
  try {
    const onProgress = (done: number, total: number): void => bar.update(done, total, 'tokens')
    await engine.session().evaluate(tokens, visit, { signal: io.signal, onProgress })
    rows.end()
  } catch (error) {
    rows.end(error)
    throw error
  } finally {
    bar.end()
  }
}

/** Nine digits name every f32 exactly and are half as long as what JSON would write. */
const short = (value: number): number => Number(value.toPrecision(9))

async function writeJson(rows: AsyncIterable<Position>, io: Io): Promise<void> {
  let separator = '{"positions":['
  for await (const { pos, top, logits } of rows) {
    const best = top.map(([id, logit]) => [id, short(logit)])
    await io.write(separator + JSON.stringify({ pos, top: best, ...(logits ? { logits: Array.from(logits, short) } : {}) }))
    separator = ','
  }
  await io.write(`${separator === ',' ? '' : separator}]}\n`)
}

async function writeTable(rows: AsyncIterable<Position>, io: Io): Promise<void> {
  for await (const { pos, top } of rows) {
    await io.write(`position ${pos}\n${table(top.map(([id, logit]) => [id, logit.toFixed(4).padStart(12)]))}`)
  }
}
