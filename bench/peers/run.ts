/**
 * Tandem beside node-llama-cpp: `npm run bench:peers -- MODEL.gguf`. Prefill of 512 tokens and decode of 128, in turn: A B A B ... The peer is installed
 * apart: `cd bench/peers && npm install`.
 *
 *     --rounds N         default 5
 *     --threads N        of each engine, default 2
 *     --prefill N        default 512
 *     --decode N         default 128
 *     --plain            Tandem without 256-bit vectors, as on older versions of Node
 *     --batch N          Tandem alone: N sequences that decode at once against one
 *     --context N        Tandem alone: decode behind N tokens against decode behind 512
 *     --save             also write bench/results/peers-DATE.jsonl, or batch-, context-
 */
import { statSync } from 'node:fs'
import { basename } from 'node:path'
import { parseArgs } from 'node:util'
import { givenPath } from '../support/given-path.ts'
import { openResults } from '../support/results.ts'
import { V8_MODES } from '../support/v8-modes.ts'
import { runBatch, runContext } from './alone.ts'
import { Child } from './child.ts'
import { compare } from './compare.ts'
import type { Options } from './options.ts'

const MAKE = `Test files of 2 GB with random weights, by format (rows that do not fit a K format fall back to one with short blocks):
  npm run -s tandem -- synth --preset mid --expert-format Q4_0 --format Q4_0 -o mid-q4_0.gguf
  npm run -s tandem -- synth --preset mid --expert-format Q8_0 --format Q8_0 -o mid-q8_0.gguf
  npm run -s tandem -- synth --preset mid --expert-format Q4_K --format Q4_K -o mid-q4_k.gguf
`

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: 'string', default: '5' },
    threads: { type: 'string', default: '2' },
    prefill: { type: 'string', default: '512' },
    decode: { type: 'string', default: '128' },
    plain: { type: 'boolean', default: false },
    batch: { type: 'string' },
    context: { type: 'string' },
    save: { type: 'boolean', default: false },
  },
})

function count(name: string, value: string): number {
  const number = Number(value)
  if (!(Number.isInteger(number) && number > 0)) throw new Error(`--${name} must be a whole number from 1, not ${value}`)
  return number
}

async function main(): Promise<number> {
  const [given] = positionals
  if (given === undefined) {
    process.stderr.write(`usage: npm run bench:peers -- MODEL.gguf [--rounds 5] [--batch N | --context N] [--save]\n\n${MAKE}`)
    return 2
  }
  // npm moves to the clone's root, a relative path starts where it was typed
  const model = givenPath(given)
  const { rounds, threads, prefill, decode } = values
  const options: Options = {
    model,
    rounds: count('rounds', rounds),
    threads: count('threads', threads),
    prefill: count('prefill', prefill),
    decode: count('decode', decode),
  }
  const mode = values.plain ? 'plain' : 'revectorised'
  const bench = values.batch !== undefined ? 'batch' : values.context !== undefined ? 'context' : 'peers'
  const results = openResults(bench, values.save, {
    filter: '',
    plain: values.plain,
    ...options,
    model: basename(model),
    modelBytes: statSync(model).size,
  })
  const tandem = new Child('Tandem', new URL('tandem.ts', import.meta.url), V8_MODES[mode])
  const children = [tandem]
  try {
    if (values.batch !== undefined) await runBatch(tandem, count('batch', values.batch), options, results)
    else if (values.context !== undefined) await runContext(tandem, count('context', values.context), options, results)
    else {
      const peer = new Child('node-llama-cpp', new URL('llama.mjs', import.meta.url), {})
      children.push(peer)
      await compare([tandem, peer], options, results)
    }
    results.end()
    return 0
  } finally {
    for (const child of children) child.close()
  }
}

process.exitCode = await main()
