/**
 * Every number of docs/performance.md in one go, on a machine where nothing else runs: `npm run bench:all -- --models FOLDER`. About 20 minutes on 2 cores.
 *
 *     --models FOLDER    where the test models are, 2 GB each; those that are missing are made (default: the system's temporary folder)
 *     --rounds N         rounds of the comparisons, default 5
 *
 * Saves to bench/results and rewrites the tables of docs/performance.md. Needs gcc, and node-llama-cpp: `cd bench/peers && npm install`.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { givenPath } from './support/given-path.ts'

const FORMATS = ['Q4_0', 'Q8_0', 'Q4_K'] as const

const { values } = parseArgs({ options: { models: { type: 'string', default: tmpdir() }, rounds: { type: 'string', default: '5' } } })
const models = givenPath(values.models)
const modelFile = (format: string): string => join(models, `tandem-mid-${format.toLowerCase()}.gguf`)

function run(script: string, ...args: string[]): void {
  process.stdout.write(`\n=== ${script} ${args.join(' ')}\n`)
  const { status } = spawnSync(process.execPath, [fileURLToPath(new URL(script, import.meta.url)), ...args], { stdio: 'inherit' })
  if (status !== 0) throw new Error(`${script} ended with ${status}`)
}

mkdirSync(models, { recursive: true })
for (const format of FORMATS) {
  const file = modelFile(format)
  if (!existsSync(file)) run('../src/cli/main.ts', 'synth', '--preset', 'mid', '--expert-format', format, '--format', format, '-o', file)
}
const rounds = ['--rounds', values.rounds, '--save']
run('run.ts', '--save')
run('native/run.ts', '--save')
for (const pause of ['0', '4']) run('load.ts', modelFile('Q4_0'), '--pause', pause, ...rounds)
for (const format of FORMATS) run('peers/run.ts', modelFile(format), ...rounds)
// without 256-bit vectors: what older versions of Node get
run('peers/run.ts', modelFile('Q4_0'), '--plain', ...rounds)
run('peers/run.ts', modelFile('Q4_0'), '--batch', '8', '--decode', '64', ...rounds)
run('tasks.ts', ...rounds)
run('peers/run.ts', modelFile('Q4_0'), '--context', '16384', '--decode', '32', ...rounds)
run('tables.ts')
