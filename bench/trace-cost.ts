/**
 * What recording a trace costs: the same model with and without it in one process, a few tokens each in turn. `npm run bench:trace -- MODEL.gguf
 * --pipeline hybrid`; needs memory for the model four times (`support/abba.ts`).
 *
 *     --pipeline P   default cpu
 *     --threads N    default: as the pipeline has it
 *     --turns N      turns of 16 tokens of each, default 40
 *     --save         also write bench/results/trace-cost-DATE.jsonl
 */
import { parseArgs } from 'node:util'
import { loadModel, type Session } from '../src/index.ts'
import { isA, loadAbba } from './support/abba.ts'
import { openResults } from './support/results.ts'
import { spread, spreadText } from './support/statistics.ts'

const TURN_TOKENS = 16
const CONTEXT_TOKENS = 256

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    pipeline: { type: 'string', default: 'cpu' },
    threads: { type: 'string' },
    turns: { type: 'string', default: '40' },
    save: { type: 'boolean', default: false },
  },
})
const [path] = positionals
const turns = Number(values.turns)
if (path === undefined || !(turns >= 2))
  throw new Error('usage: bench/trace-cost.ts MODEL.gguf [--pipeline P] [--threads N] [--turns N >= 2]')

const threads = values.threads === undefined ? undefined : Number(values.threads)
const load = (trace: boolean) => loadModel(path, { pipeline: values.pipeline, threads, sequences: 1, trace })
const { sessions, tokens, close } = await loadAbba(load, CONTEXT_TOKENS)

/** Milliseconds of one turn, from the same depth every time. */
async function turn(session: Session): Promise<number> {
  session.truncate(CONTEXT_TOKENS)
  const start = performance.now()
  for (const token of tokens(TURN_TOKENS)) await session.decode(token)
  return performance.now() - start
}

for (const session of sessions) await turn(session)
const ms = { recording: [] as number[], silent: [] as number[] }
for (let done = 0; done < turns; done += 2) {
  for (const [index, session] of sessions.entries()) ms[isA(index) ? 'recording' : 'silent'].push(await turn(session))
}
await close()

const perToken = (all: readonly number[]) => spread(all.map((each) => each / TURN_TOKENS))
const [on, off] = [perToken(ms.recording), perToken(ms.silent)]
const cost = spread(ms.recording.map((each, index) => each / ms.silent[index]! - 1))
const results = openResults('trace-cost', values.save, { model: path, pipeline: values.pipeline })
results.print(`ms per token, recording  ${spreadText(on)}`)
results.print(`              silent     ${spreadText(off)}`)
results.print(`cost, median of ${ms.silent.length} pairs of neighbours: ${(cost.median * 100).toFixed(2)} %`)
results.record({ kind: 'trace-cost', turns: ms.silent.length, recording: on, silent: off, cost })
results.end()
