/** Tandem and node-llama-cpp on one model file, in turn. */
import type { Results } from '../support/results.ts'
import { columns, digits, spread, spreadText } from '../support/statistics.ts'
import type { Child } from './child.ts'
import type { Options } from './options.ts'
import { randomTokens } from './tokens.ts'

interface Turn {
  /** Tokens per second. */
  readonly prefill: number
  readonly decode: number
  readonly best: readonly number[]
}

async function takeTurn(engine: Child, prompt: readonly number[], forced: readonly number[]): Promise<Turn> {
  const first = await engine.ask({ kind: 'prompt', id: 0, tokens: prompt })
  const rest = await engine.ask({ kind: 'decode', ids: [0], tokens: [forced] })
  return {
    prefill: (1000 * prompt.length) / first.ms,
    decode: (1000 * forced.length) / rest.ms,
    best: [...(first.best ?? []), ...(rest.best ?? [])],
  }
}

/** Share of steps at which both would have gone on with the same token. */
function agreement(a: readonly number[], b: readonly number[]): number {
  return a.filter((token, index) => token === b[index]).length / a.length
}

const WIDTHS = [22, 26, 26, 26]

/** `engines`: Tandem, then the peer. Each process keeps its model while the other works; what CPU it takes then is measured and shown. */
export async function compare(engines: readonly [Child, Child], options: Options, results: Results): Promise<void> {
  const { model: path, threads, prefill, decode, rounds } = options
  const contextTokens = Math.ceil((prefill + decode + 1) / 256) * 256
  let vocabulary = 0
  for (const engine of engines) {
    const reply = await engine.ask({ kind: 'load', path, threads, contextTokens, sequences: 1, ubatch: Math.max(512, prefill) })
    vocabulary ||= reply.vocabulary ?? 0
    results.record({ kind: 'engine', engine: engine.name, about: reply.about, loadMs: reply.ms })
    results.print(`${engine.name}: ${reply.about}; loaded in ${digits(reply.ms / 1000)} s`)
  }
  const [prompt, forced] = [randomTokens(prefill, vocabulary, 1), randomTokens(decode, vocabulary, 2)]
  const turns: [Turn[], Turn[]] = [[], []]
  const idle: [number[], number[]] = [[], []]
  // round 0 warms up
  for (let round = 0; round <= rounds; round++) {
    for (const [index, engine] of engines.entries()) {
      const other = 1 - index
      const before = await engines[other]!.ask({ kind: 'cpu' })
      const start = performance.now()
      const turn = await takeTurn(engine, prompt, forced)
      const after = await engines[other]!.ask({ kind: 'cpu' })
      if (round === 0) continue
      turns[index]!.push(turn)
      idle[other]!.push((100 * (after.ms - before.ms)) / (performance.now() - start))
      const { prefill: prefillRate, decode: decodeRate } = turn
      results.record({ kind: 'turn', round, engine: engine.name, prefillTokensPerSecond: prefillRate, decodeTokensPerSecond: decodeRate })
    }
  }
  const same = agreement(turns[0][0]!.best, turns[1][0]!.best)
  results.print(`\n${rounds} rounds in turn after one to warm up; tokens/s, median (range)\n`)
  results.print(columns(['', ...engines.map(({ name }) => name), 'ratio'], WIDTHS))
  for (const [key, count] of [
    ['prefill', prefill],
    ['decode', decode],
  ] as const) {
    const rates = turns.map((each) => spread(each.map((turn) => turn[key])))
    const ratio = spread(turns[0].map((turn, round) => turn[key] / turns[1][round]![key]))
    results.record({
      kind: 'result',
      test: key,
      tokens: count,
      engines: engines.map(({ name }, i) => ({ engine: name, rate: rates[i] })),
      ratio,
    })
    results.print(columns([`${key} ${count}`, ...rates.map(spreadText), spreadText(ratio)], WIDTHS))
  }
  const idleText = idle.map((each, index) => `${engines[index]!.name} ${digits(spread(each).median)} %`)
  results.record({ kind: 'checks', sameTokenShare: same, idleCpuPercent: idle.map((each) => spread(each).median) })
  results.print(
    `\nsame most likely token at ${digits(100 * same)} % of steps; CPU of one core taken while the other works: ${idleText.join(', ')}`,
  )
}
