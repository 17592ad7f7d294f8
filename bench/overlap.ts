/**
 * What overlapping is worth: the same model with and without overlap in one process, a few tokens each in turn, from the traces' own time stamps.
 * `npm run bench:overlap -- MODEL.gguf`; needs a GPU and memory for the routed experts four times: two engines of each kind, loaded A B B A, because where
 * an engine's memory lies makes more of a difference than what is measured.
 *
 *     --layers N     layers with hand-offs to measure in each mode, default 4000
 *     --context N    tokens in the cache before, default 256
 *     --save         also write bench/results/overlap-DATE.jsonl
 */
import { parseArgs } from 'node:util'
import { loadModel, type Engine, type Session } from '../src/index.ts'
import { createRandom } from '../src/sampling/random.ts'
import { openResults } from './support/results.ts'
import { digits, spread, spreadText } from './support/statistics.ts'

/** Tokens decoded by one engine before it is the other's turn. */
const TURN = 4

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    layers: { type: 'string', default: '4000' },
    context: { type: 'string', default: '256' },
    save: { type: 'boolean', default: false },
  },
})
const [path] = positionals
const [layersWanted, context] = [Number(values.layers), Number(values.context)]
if (path === undefined || !(layersWanted > 0 && context > 0))
  throw new Error('usage: bench/overlap.ts MODEL.gguf [--layers N] [--context N] [--save]')

interface TraceEvent {
  readonly ph: string
  readonly tid: number
  readonly name: string
  readonly ts: number
  readonly dur: number
  readonly args: { readonly name?: string; readonly layer?: number; readonly waitUs?: number }
}

/** One hand-off, microseconds. */
interface Handoff {
  /** From the router's end to the end of combine. */
  readonly totalUs: number
  readonly sharedUs: number
  /** How long before the pool's last worker the shared expert was done; negative when after it. */
  readonly aheadUs: number
  /** The total without what a worker computed, barriers left out: the mean of the workers. Who finishes early and waits counts as waiting. */
  readonly hostUs: number
  /** The total without the time from the first worker's start to the last one's end, which varies by more than the shared expert takes. */
  readonly aroundUs: number
}

function handoffsOf(engine: Engine): Handoff[] {
  const { traceEvents } = JSON.parse([...(engine.trace() ?? [])].join('')) as { traceEvents: TraceEvent[] }
  const names = new Map(traceEvents.filter(({ name }) => name === 'thread_name').map(({ tid, args }) => [tid, args.name ?? '']))
  const on = (prefix: RegExp): TraceEvent[] =>
    traceEvents.filter(({ ph, tid }) => ph === 'X' && prefix.test(names.get(tid) ?? '')).sort((a, b) => a.ts - b.ts)
  const workers = on(/^worker /)
  const open = new Map<string, TraceEvent>()
  const found: Handoff[] = []
  let worker = 0
  for (const event of on(/stream$/)) {
    if (event.name !== 'combine' || !open.has('awaitRouted')) {
      open.set(event.name, event)
      continue
    }
    const [router, shared] = [open.get('router')!, open.get('sharedExperts')!]
    const end = event.ts + event.dur
    const first = worker
    const begun = workers[worker]?.ts ?? end
    let [lastDone, busyUs] = [0, 0]
    for (; worker < workers.length && workers[worker]!.ts < end; worker++) {
      const { ts, dur, args } = workers[worker]!
      lastDone = Math.max(lastDone, ts + dur)
      busyUs += dur - (args.waitUs ?? 0)
    }
    const totalUs = end - (router.ts + router.dur)
    const hostUs = totalUs - busyUs / (worker - first)
    const aroundUs = totalUs - (lastDone - begun)
    found.push({ totalUs, sharedUs: shared.dur, aheadUs: lastDone - (shared.ts + shared.dur), hostUs, aroundUs })
    open.clear()
  }
  return found
}

const random = createRandom(1)
const engines: Engine[] = []
for (const overlap of [true, false, false, true]) {
  engines.push(await loadModel(path, { pipeline: 'hybrid', ubatch: 256, sequences: 1, trace: true, overlap }))
}
const { model, plan } = engines[0]!
const layers = plan.cuda?.layers.filter(({ handoff }) => handoff).length ?? 0
if (layers === 0) throw new Error('no layer of this plan is handed to the pool')
const tokens = (count: number): number[] => Array.from({ length: count }, () => Math.floor(random() * model.hyper.vocabulary))

async function decode(session: Session): Promise<void> {
  for (const token of tokens(TURN)) await session.decode(token)
}

const sessions = engines.map((engine) => engine.session())
for (const session of sessions) {
  await session.sync(tokens(context))
  await decode(session)
}
// what was traced so far is warm-up, the prefill included
const skip = engines.map((engine) => handoffsOf(engine).length)
for (let done = 0; done < layersWanted; done += 2 * TURN * layers) {
  for (const session of sessions) await decode(session)
}
const each = engines.map((engine, index) => handoffsOf(engine).slice(skip[index]))
const a = [...each[0]!, ...each[3]!]
const b = [...each[1]!, ...each[2]!]
for (const engine of engines) await engine.close()

const results = openResults('overlap', values.save, { model: path })
const totals = { overlap: spread(a.map(({ totalUs }) => totalUs)), sequential: spread(b.map(({ totalUs }) => totalUs)) }
const sharedUs = spread(b.map(({ sharedUs: us }) => us)).median
const host = spread(a.map(({ hostUs }) => hostUs))
const hidden = a.filter(({ aheadUs }) => aheadUs > 0).length / a.length
const gainUs = totals.sequential.median - totals.overlap.median
results.print(`${a.length} and ${b.length} hand-offs`)
const medians = each.map((some) => digits(spread(some.map(({ totalUs }) => totalUs)).median))
results.print(`medians of the engines, overlapped ${medians[0]} and ${medians[3]}, in sequence ${medians[1]} and ${medians[2]} us`)
results.print(`router done to combine done, overlapped   ${spreadText(totals.overlap)} us`)
results.print(`                             in sequence   ${spreadText(totals.sequential)} us`)
results.print(
  `shared expert on the GPU                  ${digits(sharedUs)} us; done before the pool in ${(hidden * 100).toFixed(2)} % of layers`,
)
results.print(`all but the workers' computing, overlapped ${spreadText(host)} us`)
results.print(
  `gain of the medians                       ${digits(gainUs)} us, ${((gainUs / sharedUs) * 100).toFixed(0)} % of the shared expert's time`,
)
const around = { overlap: spread(a.map(({ aroundUs }) => aroundUs)), sequential: spread(b.map(({ aroundUs }) => aroundUs)) }
const aroundGainUs = around.sequential.median - around.overlap.median
results.print(`around the pool's work, overlapped        ${spreadText(around.overlap)} us`)
results.print(`                        in sequence       ${spreadText(around.sequential)} us`)
results.print(
  `gain of the medians                       ${digits(aroundGainUs)} us, ${((aroundGainUs / sharedUs) * 100).toFixed(0)} % of the shared expert's time`,
)
results.record({ kind: 'overlap', around, handoffs: [a.length, b.length], totals, host, sharedUs, hidden, gainUs })
results.end()
