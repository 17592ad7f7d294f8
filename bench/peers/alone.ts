/** Tandem alone: what a batch gains, and what a long context costs. Both sides of each ratio are measured in turn, in one process. */
import type { Results } from '../support/results.ts'
import { columns, digits, spread, spreadText } from '../support/statistics.ts'
import type { Child } from './child.ts'
import type { Options } from './options.ts'
import { randomTokens } from './tokens.ts'

const BATCH_PROMPT_TOKENS = 64
const SHORT_CONTEXT = 512
const WIDTHS = [28, 26]

/** One side: sequences that take a step at the same time. */
interface Side {
  readonly name: string
  readonly ids: readonly number[]
}

async function load(tandem: Child, options: Options, contextTokens: number, sequences: number, results: Results): Promise<number> {
  const { model: path, threads } = options
  const { about, vocabulary } = await tandem.ask({ kind: 'load', path, threads, contextTokens, sequences, ubatch: 512 })
  results.record({ kind: 'engine', engine: tandem.name, about })
  results.print(`${tandem.name}: ${about}`)
  return vocabulary!
}

/** Decodes with both sides in turn and prints their rates and the second's share of the first. */
async function inTurn(tandem: Child, sides: readonly [Side, Side], vocabulary: number, options: Options, results: Results): Promise<void> {
  const rates: [number[], number[]] = [[], []]
  for (let round = 0; round <= options.rounds; round++) {
    for (const [index, { ids }] of sides.entries()) {
      const tokens = ids.map((id) => randomTokens(options.decode, vocabulary, 1000 + id))
      const { ms } = await tandem.ask({ kind: 'decode', ids, tokens })
      if (round > 0) rates[index]!.push((1000 * options.decode * ids.length) / ms)
    }
  }
  const ratio = spread(rates[1].map((rate, round) => rate / rates[0][round]!))
  results.print(`\n${options.rounds} rounds of ${options.decode} steps in turn after one to warm up; tokens/s, median (range)\n`)
  for (const [index, { name, ids }] of sides.entries()) {
    const rate = spread(rates[index]!)
    results.record({ kind: 'result', test: name, sequences: ids.length, rate })
    results.print(columns([name, spreadText(rate)], WIDTHS))
  }
  results.record({ kind: 'result', test: `${sides[1].name} / ${sides[0].name}`, ratio })
  results.print(columns(['second / first', spreadText(ratio)], WIDTHS))
}

/** Decode of `batch` sequences at once against one. */
export async function runBatch(tandem: Child, batch: number, options: Options, results: Results): Promise<void> {
  const contextTokens = BATCH_PROMPT_TOKENS + options.decode + 32
  const vocabulary = await load(tandem, options, contextTokens, batch, results)
  const ids = Array.from({ length: batch }, (_, id) => id)
  for (const id of ids) await tandem.ask({ kind: 'prompt', id, tokens: randomTokens(BATCH_PROMPT_TOKENS, vocabulary, id) })
  const sides = [
    { name: 'one sequence', ids: [0] },
    { name: `${batch} sequences`, ids },
  ] as const
  await inTurn(tandem, sides, vocabulary, options, results)
}

/** Decode behind `context` tokens against decode behind 512. */
export async function runContext(tandem: Child, context: number, options: Options, results: Results): Promise<void> {
  const vocabulary = await load(tandem, options, context + options.decode + 32, 2, results)
  for (const [id, length] of [SHORT_CONTEXT, context].entries()) {
    const { ms } = await tandem.ask({ kind: 'prompt', id, tokens: randomTokens(length, vocabulary, id) })
    results.record({ kind: 'prompt', tokens: length, ms })
    results.print(`prompt of ${length} tokens: ${digits(ms / 1000)} s`)
  }
  const sides = [
    { name: `behind ${SHORT_CONTEXT} tokens`, ids: [0] },
    { name: `behind ${context} tokens`, ids: [1] },
  ] as const
  await inTurn(tandem, sides, vocabulary, options, results)
}
