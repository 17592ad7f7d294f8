/**
 * A batch of short tasks against the same tasks one after the other: `npm run bench:tasks`. The bundled model's held-out tasks, of all families in turn,
 * greedy. Every round does them in three ways, and every way's answers must be the same:
 *
 *     sessions     a session for each task, which shares nothing with the others
 *     one          a batch job that works on one task at a time
 *     so many      a batch job that works on so many at a time
 *
 *     --tasks N          default 256
 *     --concurrency N    default 32
 *     --threads N        default: the engine's
 *     --rounds N         default 5, after one to warm up
 *     --save             also write bench/results/tasks-DATE.jsonl
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { parseArgs } from 'node:util'
import { type Engine, loadModel, runBatch } from '../src/index.ts'
import { POCKET_MODEL } from '../src/pocket-model.ts'
import { openResults } from './support/results.ts'
import { columns, spread, spreadText } from './support/statistics.ts'

const MAX_TOKENS = 512
const CONTEXT_TOKENS = 1024
const WIDTHS = [30, 28]

interface Task {
  readonly id: string
  readonly family: string
  readonly prompt: string
}

/** What a way of doing the tasks gave. */
interface Outcome {
  readonly seconds: number
  readonly tokens: number
  readonly promptTokens: number
  readonly reusedTokens: number
  /** Texts by id. */
  readonly answers: ReadonlyMap<string, string>
}

const { values } = parseArgs({
  options: {
    tasks: { type: 'string', default: '256' },
    concurrency: { type: 'string', default: '32' },
    threads: { type: 'string' },
    rounds: { type: 'string', default: '5' },
    save: { type: 'boolean', default: false },
  },
})

/** The first `count` tasks, one of each family after the other. */
function someTasks(count: number): Task[] {
  const file = readFileSync(new URL('../models/pocket/tasks.jsonl', import.meta.url), 'utf8')
  const all = file
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Task)
  const place = new Map<string, number>()
  const ranked = all.map((task) => {
    const rank = place.get(task.family) ?? 0
    place.set(task.family, rank + 1)
    return { task, rank }
  })
  return ranked
    .sort((a, b) => a.rank - b.rank)
    .slice(0, count)
    .map(({ task }) => task)
}

async function inSessions(engine: Engine, tasks: readonly Task[]): Promise<Outcome> {
  const answers = new Map<string, string>()
  let [tokens, promptTokens, reusedTokens] = [0, 0, 0]
  const start = performance.now()
  for (const { id, prompt } of tasks) {
    await using session = engine.session()
    let text = ''
    for await (const delta of session.generate(prompt, { maxTokens: MAX_TOKENS, sharePrefix: false })) {
      text += delta.text
      tokens += delta.finish?.tokens ?? 0
      promptTokens += delta.finish?.promptTokens ?? 0
      reusedTokens += delta.finish?.reusedTokens ?? 0
    }
    answers.set(id, text)
  }
  return { seconds: (performance.now() - start) / 1000, tokens, promptTokens, reusedTokens, answers }
}

async function inBatch(engine: Engine, input: string, output: string, maxConcurrency: number): Promise<Outcome> {
  rmSync(output, { force: true })
  const { seconds, tokens, promptTokens, reusedTokens } = await runBatch(engine, { input, output, maxConcurrency })
  const lines = readFileSync(output, 'utf8').trim().split('\n')
  const answers = new Map(lines.map((line) => JSON.parse(line) as { id: string; text: string }).map(({ id, text }) => [id, text]))
  return { seconds, tokens, promptTokens, reusedTokens, answers }
}

const [count, concurrency, rounds] = [Number(values.tasks), Number(values.concurrency), Number(values.rounds)]
const tasks = someTasks(count)
const folder = mkdtempSync(join(tmpdir(), 'tandem-tasks-'))
const [input, output] = [join(folder, 'in.jsonl'), join(folder, 'out.jsonl')]
const engine = await loadModel(POCKET_MODEL, {
  sequences: concurrency,
  // as the command has it: room for 8 of full length
  kvTokens: CONTEXT_TOKENS * Math.min(8, concurrency),
  contextTokens: CONTEXT_TOKENS,
  ...(values.threads === undefined ? {} : { threads: Number(values.threads) }),
})
try {
  writeFileSync(input, tasks.map(({ id, prompt }) => `${JSON.stringify({ id, prompt, maxTokens: MAX_TOKENS })}\n`).join(''))
  const results = openResults('tasks', values.save, {
    filter: '',
    model: basename(POCKET_MODEL),
    tasks: tasks.length,
    concurrency,
    rounds,
    threads: engine.plan.limits.threads,
  })
  const ways = [
    { name: 'session after session', run: () => inSessions(engine, tasks) },
    { name: 'batch, 1 at a time', run: () => inBatch(engine, input, output, 1) },
    { name: `batch, ${concurrency} at a time`, run: () => inBatch(engine, input, output, concurrency) },
  ] as const
  const rates = ways.map((): number[] => [])
  let last: Outcome[] = []
  for (let round = 0; round <= rounds; round++) {
    last = []
    for (const [index, { name, run }] of ways.entries()) {
      const outcome = await run()
      for (const { id } of tasks) {
        if (outcome.answers.get(id) !== (last[0] ?? outcome).answers.get(id)) throw new Error(`${name}: another answer to ${id}`)
      }
      last.push(outcome)
      if (round > 0) rates[index]!.push(outcome.tokens / outcome.seconds)
    }
  }
  results.print(`\n${tasks.length} tasks, ${rounds} rounds in turn after one to warm up; generated tokens/s, median (range)\n`)
  for (const [index, { name }] of ways.entries()) {
    const { promptTokens, reusedTokens, tokens } = last[index]!
    const rate = spread(rates[index]!)
    results.record({ kind: 'result', test: name, rate, promptTokens, reusedTokens, tokens })
    results.print(
      `${columns([name, spreadText(rate)], WIDTHS)}   ${promptTokens} prompt tokens (${reusedTokens} shared), ${tokens} generated`,
    )
  }
  for (const index of [0, 1]) {
    const test = `${ways[2].name} / ${ways[index]!.name}`
    const ratio = spread(rates[2]!.map((rate, round) => rate / rates[index]![round]!))
    results.record({ kind: 'result', test, ratio })
    results.print(columns([test, spreadText(ratio)], WIDTHS))
  }
  results.end()
} finally {
  await engine.close()
  rmSync(folder, { recursive: true })
}
