/**
 * The process that `bench/run.ts` starts for one suite in one V8 mode: checks and times each case with tinybench, one JSON line each on stdout.
 *
 *     node suite-process.ts FILE SETTINGS
 */
import { Bench } from 'tinybench'
import type { Case, Settings, Suite, Work } from './suite.ts'

/** Command-line settings, as JSON. */
export interface ProcessSettings extends Settings {
  readonly seconds: number
}

/** One line of output: a case's rates, each a median with the range of the middle half of all runs. */
export interface CaseResult {
  readonly name: string
  readonly runs: number
  readonly rates: readonly { readonly unit: Work['unit']; readonly median: number; readonly low: number; readonly high: number }[]
}

const WARMUP_SHARE = 0.25
/** Amount per second that is 1 of a unit. */
const PER_SECOND = { 'GB/s': 1e9, 'GOP/s': 1e9, 'Mtokens/s': 1e6 } as const

function rate({ amount, unit }: Work, milliseconds: number): number {
  if (unit === 'us') return (milliseconds * 1000) / amount
  return amount / (milliseconds / 1000) / PER_SECOND[unit]
}

async function time(each: Case, seconds: number): Promise<CaseResult> {
  await each.check()
  const bench = new Bench({
    time: seconds * 1000,
    iterations: 5,
    warmupTime: seconds * 1000 * WARMUP_SHARE,
    warmupIterations: 2,
    timestampProvider: 'hrtimeNow',
    retainSamples: true,
    throws: true,
  })
  bench.add(each.name, () => each.run())
  const [task] = await bench.run()
  if (task?.result.state !== 'completed') throw new Error(`${each.name}: ${task?.result.state ?? 'no result'}`)
  // after timing, too: what ran last is the code that was timed
  await each.check()
  const { p50, p75, samples } = task.result.latency
  const p25 = samples![Math.floor(samples!.length / 4)]!
  const rates = each.work.map((work) => {
    const [low, high] = [rate(work, p25), rate(work, p75)].sort((a, b) => a - b) as [number, number]
    return { unit: work.unit, median: rate(work, p50), low, high }
  })
  return { name: each.name, runs: samples!.length, rates }
}

const [file, settingsText] = process.argv.slice(2)
const settings = JSON.parse(settingsText!) as ProcessSettings
const { suite } = (await import(file!)) as { suite: Suite }
for await (const each of suite.cases(settings)) {
  process.stdout.write(`${JSON.stringify(await time(each, settings.seconds))}\n`)
}
