/**
 * What overlapping is worth: the same model with and without overlap in one process, a few tokens each in turn, from the traces' own time stamps.
 * `npm run bench:overlap -- MODEL.gguf`; needs a GPU and memory for the routed experts four times (`support/abba.ts`).
 *
 *     --layers N     layers with hand-offs to measure in each mode, default 4000
 *     --context N    tokens in the cache before, default 256
 *     --threads N    workers of the pool; default: as the pipeline has it
 *     --save         also write bench/results/overlap-DATE.jsonl
 */
import { parseArgs } from 'node:util'
import { loadModel, type Session } from '../src/index.ts'
import { loadAbba } from './support/abba.ts'
import { type Handoff, handoffsOf } from './support/handoffs.ts'
import { openResults } from './support/results.ts'
import { digits, spread, spreadText } from './support/statistics.ts'

/** Tokens decoded by one engine before it is the other's turn. */
const TURN = 4

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    layers: { type: 'string', default: '4000' },
    context: { type: 'string', default: '256' },
    threads: { type: 'string' },
    save: { type: 'boolean', default: false },
  },
})
const [path] = positionals
const [layersWanted, context] = [Number(values.layers), Number(values.context)]
const threads = values.threads === undefined ? undefined : Number(values.threads)
if (path === undefined || !(layersWanted > 0 && context > 0))
  throw new Error('usage: bench/overlap.ts MODEL.gguf [--layers N] [--context N] [--threads N] [--save]')

const load = (overlap: boolean) => loadModel(path, { pipeline: 'hybrid', ubatch: 256, sequences: 1, trace: true, overlap, threads })
const { engines, sessions, tokens, close } = await loadAbba(load, context)
const layers = engines[0]!.plan.cuda?.layers.filter(({ handoff }) => handoff).length ?? 0
if (layers === 0) throw new Error('no layer of this plan is handed to the pool')

async function decode(session: Session): Promise<void> {
  for (const token of tokens(TURN)) await session.decode(token)
}

for (const session of sessions) await decode(session)
// what was traced so far is warm-up, the prefill included
const skip = engines.map((engine) => handoffsOf(engine).length)
for (let done = 0; done < layersWanted; done += 2 * TURN * layers) {
  for (const session of sessions) await decode(session)
}
const each = engines.map((engine, index) => handoffsOf(engine).slice(skip[index]))
await close()

const [a, b] = [
  [...each[0]!, ...each[3]!],
  [...each[1]!, ...each[2]!],
]
const of = (handoffs: readonly Handoff[], what: keyof Handoff) => spread(handoffs.map((handoff) => handoff[what]))
const pair = (what: keyof Handoff) => ({ overlap: of(a, what), sequential: of(b, what) })
const [totals, around] = [pair('totalUs'), pair('aroundUs')]
const sharedUs = of(b, 'sharedUs').median
const hidden = a.filter(({ aheadUs }) => aheadUs > 0).length / a.length
const gainUs = totals.sequential.median - totals.overlap.median
const host = {
  all: of(a, 'hostUs'),
  start: of(a, 'startUs'),
  barriers: of(a, 'barriersUs'),
  laggard: of(a, 'laggardUs'),
  back: of(a, 'backUs'),
}

const results = openResults('overlap', values.save, { model: path })
const gainText = (us: number): string =>
  `gain of the medians                       ${digits(us)} us, ${((us / sharedUs) * 100).toFixed(0)} % of the shared expert's time`
results.print(`${a.length} and ${b.length} hand-offs`)
const medians = each.map((some) => digits(of(some, 'totalUs').median))
results.print(`medians of the engines, overlapped ${medians[0]} and ${medians[3]}, in sequence ${medians[1]} and ${medians[2]} us`)
results.print(`router done to combine done, overlapped   ${spreadText(totals.overlap)} us`)
results.print(`                             in sequence   ${spreadText(totals.sequential)} us`)
results.print(
  `shared expert on the GPU                  ${digits(sharedUs)} us; done before the pool in ${(hidden * 100).toFixed(2)} % of layers`,
)
results.print(gainText(gainUs))
results.print(`around the pool's work, overlapped        ${spreadText(around.overlap)} us`)
results.print(`                        in sequence       ${spreadText(around.sequential)} us`)
results.print(gainText(around.sequential.median - around.overlap.median))
results.print(`all but the workers' computing, overlapped ${spreadText(host.all)} us`)
results.print(`  until a worker begins                    ${spreadText(host.start)} us`)
results.print(`  at barriers between its parts            ${spreadText(host.barriers)} us`)
results.print(`  from its end to the last one's           ${spreadText(host.laggard)} us`)
results.print(`  from there to the end of combine         ${spreadText(host.back)} us`)
results.record({ kind: 'overlap', around, handoffs: [a.length, b.length], totals, host, sharedUs, hidden, gainUs })
results.end()
