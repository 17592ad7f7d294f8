/**
 * Loading in a fresh process, beside what it cannot be faster than: `npm run bench:load -- MODEL.gguf`. In turn: the file is read from the page cache as
 * `cat` does, a C program touches as much fresh memory as the arenas have, the model is loaded. Needs gcc.
 *
 *     --rounds N     default 5
 *     --threads N    of the load and of the C program, default 2
 *     --pause S      seconds before each of the two that take memory, default 0: a virtual machine may give free memory back to its host, and
 *                    memory that has just been freed costs less than memory that must come back
 *     --built        load with what `npm run build` has made, as an installed package does, instead of the sources
 *     --save         also write bench/results/load-DATE.jsonl
 */
import { execFileSync } from 'node:child_process'
import { closeSync, openSync, readSync, statSync } from 'node:fs'
import { basename } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { givenPath } from './support/given-path.ts'
import type { LoadTimes } from './support/load-process.ts'
import { buildNativeMemory, touchFresh } from './support/native-memory.ts'
import { openResults } from './support/results.ts'
import { spread, spreadText } from './support/statistics.ts'

const MIB = 2 ** 20

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: 'string', default: '5' },
    threads: { type: 'string', default: '2' },
    pause: { type: 'string', default: '0' },
    built: { type: 'boolean', default: false },
    save: { type: 'boolean', default: false },
  },
})
const [given] = positionals
const [rounds, threads, pause] = [Number(values.rounds), Number(values.threads), Number(values.pause)]
if (given === undefined || !(rounds >= 1 && threads >= 1 && pause >= 0))
  throw new Error('usage: bench/load.ts MODEL.gguf [--rounds N] [--threads N] [--pause S] [--built] [--save]')
const path = givenPath(given)

/** Reads a file to its end into one small buffer; milliseconds. */
function readFile(): number {
  const buffer = Buffer.alloc(MIB)
  const file = openSync(path, 'r')
  const start = performance.now()
  while (readSync(file, buffer) > 0);
  closeSync(file)
  return performance.now() - start
}

const loadProcess = fileURLToPath(new URL('support/load-process.ts', import.meta.url))

const library = new URL(values.built ? '../dist/src/index.js' : '../src/index.ts', import.meta.url).href

const load = (): LoadTimes =>
  JSON.parse(execFileSync(process.execPath, [loadProcess, library, path, String(threads)], { encoding: 'utf8' })) as LoadTimes

buildNativeMemory()
readFile()
const { arenaBytes } = load()
const results = openResults('load', values.save, {
  filter: '',
  model: basename(path),
  modelBytes: statSync(path).size,
  threads,
  pause,
  built: values.built,
})
const [files, touches, loads]: [number[], number[], LoadTimes[]] = [[], [], []]
for (let round = 0; round < rounds; round++) {
  files.push(readFile())
  await setTimeout(pause * 1000)
  touches.push(touchFresh(arenaBytes / MIB, threads))
  await setTimeout(pause * 1000)
  loads.push(load())
}

const cases: [string, readonly number[]][] = [
  ['reading the file, ms', files],
  ['touching memory, ms', touches],
  ['loading, ms', loads.map(({ loadMs }) => loadMs)],
  // one thread's share of it is what the load waits for
  ["the system's part of loading, ms per thread", loads.map(({ systemMs }) => systemMs / threads)],
  ['the rest, ms', loads.map(({ loadMs, systemMs }) => loadMs - systemMs / threads)],
  ['a decoded token, ms', loads.map(({ tokenMs }) => tokenMs)],
]
for (const [test, all] of cases) {
  results.print(`${test.padEnd(44)} ${spreadText(spread(all))}`)
  results.record({ kind: 'result', test, rate: spread(all), values: all })
}
results.end()
