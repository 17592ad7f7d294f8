/**
 * The first generation after a pause against the next one: `npm run bench:idle -- MODEL.gguf`. Beside it a C program that keeps as much memory as the arenas
 * have, in huge pages too, and reads it twice after the same pause: what the machine itself makes slower, such as memory that a virtual machine's host has
 * moved meanwhile, is slower there as well. The two take turns in being first. Needs gcc, and memory for the model twice.
 *
 *     --pause S      seconds before each round, default 600
 *     --rounds N     default 3
 *     --threads N    default 2
 *     --save         also write bench/results/idle-DATE.jsonl
 */
import { basename } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { loadModel } from '../src/index.ts'
import { createRandom } from '../src/sampling/random.ts'
import { givenPath } from './support/given-path.ts'
import { buildNativeMemory, NativeReader } from './support/native-memory.ts'
import { openResults } from './support/results.ts'
import { spread, spreadText } from './support/statistics.ts'

const PROMPT_TOKENS = 64
const TOKENS = 32
const MIB = 2 ** 20

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    pause: { type: 'string', default: '600' },
    rounds: { type: 'string', default: '3' },
    threads: { type: 'string', default: '2' },
    save: { type: 'boolean', default: false },
  },
})
const [given] = positionals
const [pause, rounds, threads] = [Number(values.pause), Number(values.rounds), Number(values.threads)]
if (given === undefined || !(pause >= 0 && rounds >= 1 && threads >= 1))
  throw new Error('usage: bench/idle.ts MODEL.gguf [--pause S] [--rounds N] [--threads N] [--save]')
const path = givenPath(given)

buildNativeMemory()
await using engine = await loadModel(path, { threads, sequences: 1 })
const { arenas } = engine.plan.wasm!
const reader = await NativeReader.start(Math.ceil(arenas.reduce((sum, bytes) => sum + bytes, 0) / MIB), threads)
const random = createRandom(1)
const token = (): number => Math.floor(random() * engine.model.hyper.vocabulary)

/** A first and a next turn of something, ms. */
interface Turns {
  readonly first: number
  readonly next: number
}

/** Prefill and decode of one generation, ms; no two prompts begin alike. */
async function generate(): Promise<{ prefill: number; decode: number }> {
  const session = engine.session()
  const prompt = Array.from({ length: PROMPT_TOKENS }, token)
  const start = performance.now()
  await session.sync(prompt)
  const prefilled = performance.now()
  for (let done = 0; done < TOKENS; done++) await session.decode(token())
  const end = performance.now()
  await session.close()
  return { prefill: prefilled - start, decode: end - prefilled }
}

const measured: Record<'prefill' | 'decode' | 'reader', Turns[]> = { prefill: [], decode: [], reader: [] }

async function measureEngine(): Promise<void> {
  const [first, next] = [await generate(), await generate()]
  measured.prefill.push({ first: first.prefill, next: next.prefill })
  measured.decode.push({ first: first.decode, next: next.decode })
}

async function measureReader(): Promise<void> {
  measured.reader.push({ first: await reader.read(), next: await reader.read() })
}

for (let warmUp = 0; warmUp < 3; warmUp++) {
  await generate()
  await reader.read()
}
const results = openResults('idle', values.save, { filter: '', model: basename(path), pause, threads })
const idle: number[] = []
for (let round = 0; round < rounds; round++) {
  const before = process.cpuUsage()
  await setTimeout(pause * 1000)
  const { user, system } = process.cpuUsage(before)
  idle.push((user + system) / 1000)
  const both = [measureEngine, measureReader]
  for (const measure of round % 2 === 0 ? both : both.toReversed()) await measure()
}
reader.close()

for (const [what, turns] of Object.entries(measured)) {
  for (const [test, all] of [
    [`${what}, first, ms`, turns.map(({ first }) => first)],
    [`${what}, next, ms`, turns.map(({ next }) => next)],
    [`${what}, first less next, ms`, turns.map(({ first, next }) => first - next)],
  ] as const) {
    results.print(`${test.padEnd(32)} ${spreadText(spread(all))}`)
    results.record({ kind: 'result', test, rate: spread(all), values: all })
  }
}
results.print(`${'CPU time during the pause, ms'.padEnd(32)} ${spreadText(spread(idle))}`)
results.record({ kind: 'result', test: 'CPU time during the pause, ms', rate: spread(idle), values: idle })
results.end()
