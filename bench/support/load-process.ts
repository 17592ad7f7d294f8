/** A process that loads a model once, decodes a little, and tells how long each took, as a line of JSON: `load-process.ts LIBRARY MODEL THREADS`. */
import { spread } from './statistics.ts'

/** What the process prints. */
export interface LoadTimes {
  /** From the call of `loadModel` to the engine. */
  readonly loadMs: number
  /** CPU time of the system for this process meanwhile, all threads together. */
  readonly systemMs: number
  /** Bytes of the arenas. */
  readonly arenaBytes: number
  /** Median of the tokens behind the first ones. */
  readonly tokenMs: number
}

const TOKENS = 48
const FIRST = 8

const [library, path, threads] = process.argv.slice(2) as [string, string, string]
const { loadModel } = (await import(library)) as typeof import('../../src/index.ts')
const before = process.cpuUsage()
const start = performance.now()
const engine = await loadModel(path, { threads: Number(threads) })
const loadMs = performance.now() - start
const { system } = process.cpuUsage(before)
const session = engine.session()
const tokens: number[] = []
for (let token = 0; token < TOKENS; token++) {
  const begun = performance.now()
  await session.decode((token * 37) % engine.model.hyper.vocabulary)
  tokens.push(performance.now() - begun)
}
const times: LoadTimes = {
  loadMs,
  systemMs: system / 1000,
  arenaBytes: engine.plan.wasm?.arenas.reduce((sum, bytes) => sum + bytes, 0) ?? 0,
  tokenMs: spread(tokens.slice(FIRST)).median,
}
await engine.close()
process.stdout.write(`${JSON.stringify(times)}\n`)
