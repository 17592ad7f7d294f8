/** Where numbers go: a table for people on stdout, and with --save one JSONL file per run in bench/results. */
import { appendFileSync, mkdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { header, headerText } from './header.ts'

const folder = fileURLToPath(new URL('../results/', import.meta.url))

/** One run's output. */
export interface Results {
  /** One measured number or group of numbers, for the file. */
  record(fields: Readonly<Record<string, unknown>>): void
  /** Marks the run as complete: `bench/tables.ts` takes no other. */
  end(): void
  /** One line for people. */
  print(line?: string): void
}

/** Prints the header and, when `save`, starts `bench/results/BENCH-DATE.jsonl`. */
export function openResults(bench: string, save: boolean, extra: Readonly<Record<string, unknown>> = {}): Results {
  const fields = header(bench, extra)
  const stamp = String(fields['date']).replaceAll(/[-:]/g, '').slice(0, 15)
  const path = `${folder}${bench}-${stamp}.jsonl`
  const append = (line: Readonly<Record<string, unknown>>): void => appendFileSync(path, `${JSON.stringify(line)}\n`)
  if (save) {
    mkdirSync(folder, { recursive: true })
    append(fields)
  }
  const print = (line = ''): void => void process.stdout.write(`${line}\n`)
  print(headerText(fields))
  if (save) print(`saved to bench/results/${bench}-${stamp}.jsonl`)
  return {
    record(record) {
      if (save) append(record)
    },
    end() {
      if (save) append({ kind: 'end' })
    },
    print,
  }
}
